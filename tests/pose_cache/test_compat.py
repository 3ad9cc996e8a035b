import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

_OPEN = """
import sys
from pose_cache.compat import guard_torchvision
first = guard_torchvision()
assert guard_torchvision() == first
import torch, torchvision
from torchvision.transforms import v2
image = v2.Resize((4, 4))(torch.zeros(3, 8, 8, dtype=torch.uint8))
assert image.shape == (3, 4, 4)
import open_clip, mmpose.apis
print(first, hasattr(torch.ops.torchvision, "roi_align"))
"""


def test_everything_that_needs_torchvision_imports_after_the_guard():
    result = subprocess.run([sys.executable, "-c", _OPEN], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    declared, has_ops = result.stdout.split()[-2:]
    # The schemas are declared exactly where torchvision's own operators are missing.
    assert (declared == "True") == (has_ops == "False")


def test_another_failure_of_the_import_is_not_hidden(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('broken for another reason')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pose_cache.compat import guard_torchvision\n"
        "guard_torchvision()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0
    assert "broken for another reason" in result.stderr
