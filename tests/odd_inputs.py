"""Inputs in the shape of public bug reports, each with its expected output.

``python tests/odd_inputs.py ../shared/cases`` prints the table. The inputs are not part of the repository. Each is a directory with a
``run.sh`` that runs wsdcast and prints what came out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

MUST_PRINT = {
    "01": ["u_component_of_wind unequal .*: \\[\\] largest", "v_component_of_wind unequal .*: \\[\\] largest", "exit 0"],
    "03": ["check exit 0"],
    "05": ["check exit 0"],
    "06": ["wind.grib2.*occur twice.*exit 2", "wind.nc.*occur twice.*exit 2"],
    "08": ["check exit 2.*means of a month by hour of day.*exit 2"],
    "10": ["0.18713, 12: 0.18598, 24: 0.18898", "again.nc.*(occur more than once.*exit 2|0.18713, 12: 0.18598, 24: 0.18898)"],
    "11": ["30 of 30 upright", "check exit 0"],
    "12": ["minus_99.nc.*32 points.*-99.99 m/s, far from all others", "packed.nc.*32 points.*-65.534 m/s, far from all others"],
    "13": ["is the mean over an interval.*exit 0"],
    "14": ["cfgrib_made.nc.*0.19245, 12: 0.17903, 24: 0.18941", "run.grib2.*exit 0 \\{6: 0.00023, 12: 0.00024"],
    "15": ["cds.nc.*0.18713, 12: 0.18598, 24: 0.18898", "climpred.nc.*0.18713, 12: 0.18598, 24: 0.18898"],
    "17": ["n320.nc .*exit 0.*n160.nc .*exit 0"],
    "18": ["radians.nc.*exit 0", "over.nc.*exit 0"],
    "19": ["exit 0"],
    "21": ["exit 0"],
    "22": ["exit 0"],
    "23": ["gfs .*exit 0", "gfs/\\*.*exit 0"],
    "24": ["262 m/s.*--skip 2020-01-01T18 leaves that time out.*exit 2"],
    "25": ["exit 0"],
    "26": ["1678.*2262.*exit 2.*1678.*2262.*exit 2"],
    "28": [
        "== icechunk .*(problems none found exit 0|an Icechunk repository.*exit 2)",
        "kerchunk.json .*[Kk]erchunk.*exit 2",
        "kerchunk.parq .*[Kk]erchunk.*exit 2",
    ],
    "29": ["no dates of the standard calendar.*exit 2.*calendar.*exit 2.*calendar.*exit 2"],
    "33": ["start.zarr.*dropped 3 of 18.*0.18581, 12: 0.18577, 24: 0.18505", "member.zarr.*0.18683, 12: 0.18521, 24: 0.18481"],
    "34": ["exit 0"],
    "36": ["groups \\(measurements\\).*exit 2"],
    "38": ["none.nc.*exit 0.*two.nc.* 2 m, not 10 m.*exit 2.*ten.nc.*exit 0"],
    "40": ["exit 0 .*exit 0 .*exit 0 .*exit 0 .*exit 0 .*exit 0 analysis.zarr"],
}
"""By number of the case, regular expressions that its output must match; white space is folded first."""


def cases(directory: Path) -> list[Path]:
    """The directories of all cases, in order."""
    return sorted(path.parent for path in directory.glob("*/run.sh"))


def output_of(case: Path) -> str:
    """What one case prints, on one line."""
    program = f"{sys.executable} -m wsdcast"
    environment = os.environ | {"WSDCAST": program, "PY": sys.executable, "COLUMNS": "300"}
    printed = subprocess.run(["bash", case / "run.sh"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return " ".join(printed.stdout.split())


def unmet(case: Path, output: str) -> list[str]:
    """Return the expressions that the output does not match, and a traceback if it has one."""
    missing = [pattern for pattern in MUST_PRINT[case.name[:2]] if not re.search(pattern, output)]
    return missing + ["no traceback"] * ("Traceback" in output)


def main(directory: Path) -> int:
    """Print the table, and return the number of cases with another output than expected."""
    print("| case | as it must be | printed |\n|---|---|---|")
    wrong = 0
    for case in cases(directory):
        output = output_of(case)
        missing = unmet(case, output)
        wrong += bool(missing)
        print(f"| {case.name} | {'no: ' + '; '.join(missing) if missing else 'yes'} | {output.replace('|', '/')[:600]} |", flush=True)
    print(f"\n{len(cases(directory)) - wrong} of {len(cases(directory))} as they must be")
    return wrong


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
