"""What is kept in files is made once."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gan_zoo.files import made_by_one


def test_one_makes_a_file_and_the_others_find_it(tmp_path: Path) -> None:
    file, made = tmp_path / "cache" / "kept", []

    def use(number: int) -> str:
        with made_by_one(file):
            if not file.exists():
                time.sleep(0.2)
                made.append(number)
                file.write_text(str(number))
            return file.read_text()

    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(use, range(4)))
    assert found == {str(made[0])}
    assert len(made) == 1
    assert [place.name for place in file.parent.iterdir()] == ["kept"]


def test_nobody_waits_for_a_file_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.touch()
    with made_by_one(file):
        assert [place.name for place in tmp_path.iterdir()] == ["kept"]


def test_an_error_within_is_raised(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), made_by_one(tmp_path / "kept"):
        raise PermissionError


def test_where_there_can_be_no_lock_each_makes_its_own(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with made_by_one(tmp_path / "cache" / "kept"):
        pass


def test_one_that_fails_lets_the_next_one_try(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), made_by_one(tmp_path / "kept"):
        1 / 0  # noqa: B018
    with made_by_one(tmp_path / "kept"):
        (tmp_path / "kept").touch()
