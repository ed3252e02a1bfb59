"""What several test files share: the folder of real recordings, where there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder named by STAPES_DATA, which holds ``cats_dogs`` and ``esc10``."""
    folder = os.environ.get("STAPES_DATA")
    if not folder:
        pytest.skip("set STAPES_DATA to a folder that holds cats_dogs and esc10")
    if not Path(folder).is_dir():
        pytest.fail(f"STAPES_DATA is {folder}, which is not a folder")
    return Path(folder)
