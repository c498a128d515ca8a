"""`python -m data_prep DATASET`: the same as `ali-fast prepare DATASET`, which alone knows a folder's presets."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from ali_fast.errors import InputError
from data_prep import DATASETS, prepare


def main(arguments: list[str] | None = None) -> int:
    """Prepares a data set; returns the exit code: 0 done, 2 the user's mistake, 130 or 143 interrupted."""
    parser = argparse.ArgumentParser("data_prep", description="Convert a data set to .beton files with manifests.")
    parser.add_argument("dataset", help=", ".join(DATASETS))
    parser.add_argument("--source", type=Path, help="files or folder one already has, instead of a download")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="goes into DATA_DIR/NAME (default: data)")
    parser.add_argument("--force", action="store_true", help="make it anew, even if it is there")
    parser.add_argument("--check", action="store_true", help="make nothing; compare what is there with its sha256")
    given = vars(parser.parse_args(arguments))
    signal.signal(signal.SIGTERM, _terminate)
    try:
        for manifest in prepare(given.pop("dataset"), **given):
            shape = "x".join(map(str, manifest.shape))
            print(f"{manifest.split}: {manifest.count:,} of {shape}, {manifest.bytes:,} bytes")
    except InputError as error:
        print(f"data_prep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
