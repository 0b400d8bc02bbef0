import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.errors import VoxPressError
from pipeline.files import folder_written_whole, write_atomically


def test_a_folder_is_there_only_when_its_block_ended_well(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with pytest.raises(RuntimeError), folder_written_whole(target) as folder:
        raise RuntimeError((folder / "half").write_text("x"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), folder_written_whole(tmp_path / "new" / "newer" / "result"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with folder_written_whole(target) as folder:
        (folder / "whole").write_text("1")
    assert (target / "whole").read_text() == "1"


def test_an_old_folder_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with folder_written_whole(target) as folder:
        (folder / "old").touch()
    with pytest.raises(RuntimeError), folder_written_whole(target):
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["old"]
    with folder_written_whole(target) as folder:
        (folder / "new").touch()
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from pipeline.files import folder_written_whole
        with folder_written_whole(Path(sys.argv[1])) as folder:
            (folder / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    target = tmp_path / "result"
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(target)], check=False)
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with folder_written_whole(target) as folder:
        (folder / "whole").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    code = """
        import resource, signal, sys
        from pathlib import Path
        from pipeline.errors import VoxPressError
        from pipeline.files import write_atomically
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # writing past 1000 bytes fails as on a full disk
        try:
            write_atomically(Path(sys.argv[1]), b"x" * 5000)
        except VoxPressError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{path}: could not be written: ")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VoxPressError, match="file/x: could not be written"):
        write_atomically(tmp_path / "file" / "x", b"1")
    with (
        pytest.raises(VoxPressError, match="file/x: could not be written"),
        folder_written_whole(tmp_path / "file" / "x"),
    ):
        pass
