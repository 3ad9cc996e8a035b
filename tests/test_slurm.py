"""The SLURM script of docs/cluster.md, line by line, with stand-ins for SLURM's commands and for csip."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/cluster.md"
# An array job runs once per task with its number in the environment; a job that waits for it runs then.
STAND_INS = {
    "sbatch": """
        case "$1" in
        --parsable)
            array=$(sed -n 's/^#SBATCH --array=//p' "$2")
            for task in $(seq "${array%-*}" "${array#*-}"); do SLURM_ARRAY_TASK_ID=$task bash "$2" || exit 1; done
            echo 42 ;;
        --dependency=afterok:42) [ "$2" = --wrap ] && sh -ec "$3" ;;
        *) echo "unknown: $*" >&2; exit 2 ;;
        esac""",
    "srun": 'exec "$@"',
    "csip": 'echo "$@" >> csip.log',
}


def test_each_task_does_its_share_and_the_last_job_joins_them(tmp_path: Path) -> None:
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (script,) = (block for block in blocks if "#SBATCH" in block)
    (submit,) = (block for block in blocks if "sbatch --parsable" in block)
    assert script.startswith("#!/bin/bash\n")
    (tmp_path / "bin").mkdir()
    for name, body in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "embed.sh").write_text(script)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", submit], cwd=tmp_path, env=environment, check=True, timeout=60)
    shares = [f"embed --dataset mars --shard {task}/8" for task in range(1, 9)]
    assert (tmp_path / "csip.log").read_text().splitlines() == [*shares, "embed --dataset mars --merge"]
