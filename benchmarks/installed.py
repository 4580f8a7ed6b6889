"""How large an installation is: every package that ``pip install .`` brings into an empty environment.

    python benchmarks/installed.py --json docs/results/installed.json

The size is that of the files on disk, compiled Python files left out. Where a bare ``torch`` brings the GPU libraries,
they are counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from record import made

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 6


def size(path: Path) -> int:
    """Bytes of a file or of all files below a folder, compiled Python files left out."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(f.stat().st_size for f in files if f.is_file() and f.suffix != ".pyc")


def main() -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--json", type=Path)
    given = about.parse_args()
    with tempfile.TemporaryDirectory() as home:
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        python = Path(home, "bin", "python")
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(ROOT)], check=True)
        where = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        site = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
        sizes = {path.name: size(path) for path in site.iterdir() if path.name not in {"pip", "setuptools"}}
    rows = [{"package": "all", "megabytes": round(sum(sizes.values()) / 1e6)}]
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    rows += [{"package": name, "megabytes": round(sizes[name] / 1e6)} for name in largest]
    rows.append({"package": "qcq", "megabytes": round(sizes["qcq"] / 1e6, 1)})
    for row in rows:
        print(f"{row['megabytes']:8} MB  {row['package']}")
    if given.json is not None:
        given.json.write_text(json.dumps({**made(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
