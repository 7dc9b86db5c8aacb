"""Save the curves of docs/extrapolation.md, and NASA's airfoil noise, from public sources.

usage: python examples/get_relational_data.py FOLDER

relaxation/time_user_raw.csv      relaxation modulus at 21 temperatures; NREL/pyvisco, BSD-3-Clause
tables/fatigue.csv                crack growth, R's nlme::Fatigue; Rdatasets, GPL
tables/co2_uptake.csv             CO2 uptake of 12 plants, R's datasets::CO2; Rdatasets, GPL
airfoil/airfoil_self_noise.dat    airfoil self-noise, NASA RP-1218; UCI machine learning repository

Nothing of it is part of this package: whoever passes the files on passes their licences on.
"""

import argparse
import sys
import urllib.request
from pathlib import Path

RAW = "https://raw.githubusercontent.com"
RDATASETS = f"{RAW}/vincentarelbundock/Rdatasets/1c97ab8a1df2469762e635481ba27cf4e80e3e51/csv"
SOURCES = {
    "relaxation/time_user_raw.csv": (
        f"{RAW}/NREL/pyvisco/28b51cdc30a9a625b36e296e85925080357468dc/examples/time_user_raw.csv"
    ),
    "tables/fatigue.csv": f"{RDATASETS}/nlme/Fatigue.csv",
    "tables/co2_uptake.csv": f"{RDATASETS}/datasets/CO2.csv",
    "airfoil/airfoil_self_noise.dat": (
        "https://archive.ics.uci.edu/ml/machine-learning-databases/00291/airfoil_self_noise.dat"
    ),
}


def main() -> None:
    """Download what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to write")
    folder = parser.parse_args().folder
    for name, url in SOURCES.items():
        path = folder / name
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                content = answer.read()
        except OSError as error:
            sys.exit(f"{url} cannot be had ({error}): fetch it yourself and save it as {path}.")
        path.write_bytes(content)
        print(path)


if __name__ == "__main__":
    main()
