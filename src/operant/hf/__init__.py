"""L3: the Hugging Face stack. The only folder that imports transformers, trl, peft and datasets."""
