import time
from functools import partial
from pathlib import Path
from timeit import repeat

import pytest
from fastseg_runtime.cli.run_inputs import InputError, Job, plan_jobs, refuse_inputs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b.png", "photos/a.JPG", "photos/notes.txt", "drive.mp4", "one.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.usefixtures("folder")
class TestPlanning:
    def test_a_folder_gives_its_pictures_in_order(self) -> None:
        jobs = plan_jobs(["photos"], Path("out"))
        assert [job.source for job in jobs] == ["photos/a.JPG", "photos/b.png"]
        assert [job.output for job in jobs] == [Path("out/a"), Path("out/b")]

    def test_kinds_are_told_by_name(self) -> None:
        jobs = plan_jobs(["one.png", "drive.mp4", "camera:0"], Path("out"))
        assert [job.kind for job in jobs] == ["image", "video", "camera"]
        assert jobs[2].output == Path("out/camera0")

    def test_no_picture_of_a_folder_is_taken_for_a_camera_or_a_pipeline(self) -> None:
        for name in ("Wow ! nice.jpg", "camera:0.jpg", "%d.jpg"):
            (Path("empty") / name).touch()
        for folder in (Path("empty"), Path("empty").absolute()):
            jobs = plan_jobs([str(folder)], Path("out"))
            assert [job.kind for job in jobs] == ["image"] * 3
        assert {job.output.name for job in jobs} == {"Wow ! nice", "camera:0", "%d"}

    def test_a_pipeline_may_be_longer_than_the_name_of_a_file(self) -> None:
        pipeline = "videotestsrc ! " + 60 * "queue ! " + "appsink"
        assert plan_jobs([pipeline], Path("out"))[0].kind == "camera"

    def test_one_input_may_name_its_output_file(self) -> None:
        assert plan_jobs(["drive.mp4"], Path("seg.mp4")) == [
            Job("drive.mp4", "video", Path("seg.mp4"), names_file=True)
        ]

    @pytest.mark.parametrize(
        ("source", "output", "expected"),
        [
            ("drive.mp4", "seg.png", r"\.mp4 or \.mov or \.mkv or \.avi, or a folder"),
            ("drive.mp4", "seg.webm", r"\.mp4 or"),
            ("camera:0", "seg.jpg", r"\.mp4 or"),
            ("one.png", "seg.jpg", r"\.png, or a folder"),
            ("one.png", "seg.mp4", r"\.png, or a folder"),
        ],
    )
    def test_a_file_that_cannot_hold_the_result_is_refused(
        self, source: str, output: str, expected: str
    ) -> None:
        message = f"{output} cannot hold what comes of {source}; expected a name that ends in "
        with pytest.raises(InputError, match=message + expected):
            plan_jobs([source], Path(output))

    @pytest.mark.parametrize("name", ["drive.mp4", "one.png"])
    def test_an_input_is_never_overwritten(self, name: str) -> None:
        jobs = plan_jobs([name], output := Path("photos/..") / name)
        with pytest.raises(InputError, match=f"{name} is an input; name another file"):
            refuse_inputs([output], jobs)

    def test_a_folder_whose_results_are_among_its_inputs_is_not_run_into_itself(self) -> None:
        (Path("photos") / "a.mask.png").write_bytes(b"mine")
        jobs = plan_jobs(["photos"], Path("photos"))
        refuse_inputs([Path("photos/b.mask.png"), Path("elsewhere/a.mask.png")], jobs)
        with pytest.raises(InputError, match=r"a.mask.png is an input"):
            refuse_inputs([Path("photos/a.mask.png")], jobs)

    def test_several_inputs_do_not_fit_into_one_file(self) -> None:
        with pytest.raises(InputError, match="2 inputs do not fit into one file"):
            plan_jobs(["photos"], Path("seg.png"))

    def test_equal_names_do_not_overwrite_each_other(self) -> None:
        Path("photos/a.png").touch()
        jobs = plan_jobs(["photos"], Path("out"))
        assert len({job.output for job in jobs}) == 3
        jobs = plan_jobs(["photos", "photos/b.png"], Path("out"))
        assert len({job.output for job in jobs}) == 4
        assert not any(job.names_file for job in jobs)

    def test_ten_times_the_pictures_take_ten_times_as_long_to_plan(self) -> None:
        took_s = []
        for count in (1_000, 10_000):
            urls = [f"http://host/{n}" for n in range(count)]
            plan = partial(plan_jobs, urls, Path("out"))
            assert len(plan()) == count
            took_s.append(min(repeat(plan, timer=time.process_time, number=1, repeat=3)))
        assert took_s[1] < 20 * took_s[0]  # each held against each other: 30 times

    def test_an_empty_folder_is_an_error(self) -> None:
        with pytest.raises(InputError, match=r"no pictures in empty; expected \*\.bmp"):
            plan_jobs(["empty"], Path("out"))

    @pytest.mark.parametrize("name", ["none.png", "none.mp4", "fotos"])
    def test_a_missing_input_is_named(self, name: str) -> None:
        expected = "expected a picture, folder, video or camera:N"
        with pytest.raises(InputError, match=f"no such file or folder: {name}; {expected}"):
            plan_jobs([name], Path("out"))

    def test_an_unknown_kind_of_file_lists_the_known_ones(self) -> None:
        with pytest.raises(InputError, match=r"neither a picture .*\.png.* nor a video .*\.mp4"):
            plan_jobs(["photos/notes.txt"], Path("out"))
