"""The embedded model over bytes: any text, one token for a name, and the same after saving."""

import torch

from operant.hf.rollouts.policy import byte_policy, load_policy


def test_any_text_and_a_name_as_one_token(tmp_path):
    text = "na\u00efve \u201cquotes\u201d \u96ea\t\n<rev>\u00e9"
    policy = byte_policy(["<rev>"], seed=1, hidden=32, layers=1)
    tokens = policy.tokenizer(text)["input_ids"]
    assert policy.text(tokens) == text and len(policy.tokenizer("<rev>")["input_ids"]) == 1
    assert len(tokens) == len(text.replace("<rev>", "r").encode())
    policy.save(tmp_path / "model")
    again = load_policy(str(tmp_path / "model"), device="cpu")
    assert again.tokenizer(text)["input_ids"] == tokens and again.text(tokens) == text
    ids = torch.tensor([tokens])
    with torch.no_grad():
        assert (policy.model(ids).logits - again.model(ids).logits).abs().max() < 1e-4


def test_weights_follow_from_the_seed():
    first, same, other = (byte_policy(seed=s, hidden=16, layers=1) for s in (0, 0, 1))
    for a, b, c in zip(*(p.model.parameters() for p in (first, same, other)), strict=True):
        assert torch.equal(a, b) and (a.dim() == 1 or not torch.equal(a, c))
