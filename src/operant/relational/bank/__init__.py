"""Banks of known tasks: reading, evaluating, splitting and storing them."""
