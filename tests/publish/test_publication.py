"""What a publication sends, keeps and deletes, on a hub that fails in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mvl_assets.publish import hub_repository, publication
from mvl_assets.publish.errors import PublishError
from mvl_assets.publish.hub_repository import HubRepository, LocalFile
from mvl_assets.publish.publication import PublicationPlan, plan_publication, send_publication
from tests.fetch.hub_server import Fault
from tests.publish.writable_hub import TOKEN, WritableHub, WritableRepo

REPO = "someone/pairs"
SHARD = "parquet/single_image/train-{:05d}-of-00003-{:016x}.parquet"
MANIFEST = "lance/single_image.lance/_versions/1.manifest"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_repository, "BACKOFF_BASE_S", 0.01)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    server = WritableHub()
    server.repos[REPO] = WritableRepo(files={".gitattributes": b"* text\n"})
    yield server
    server.close()


class Publisher:
    """Publishes a folder of files, and remembers what was reported."""

    def __init__(self, hub: WritableHub, folder: Path) -> None:
        self.waits: list[tuple[float, str]] = []
        self.commits: list[tuple[int, int, int]] = []
        self.repository = HubRepository(REPO, hub.url, TOKEN, lambda seconds, why: self.waits.append((seconds, why)))
        self.folder = folder

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def plan(self) -> PublicationPlan:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        files = [LocalFile(str(path.relative_to(self.folder)), path, path.stat().st_size) for path in paths]
        return plan_publication(files, self.repository.list_files(), ["parquet", "lance"])

    def publish(self) -> None:
        send_publication(self.repository, self.plan(), lambda *counts: self.commits.append(counts))


@pytest.fixture
def publisher(hub: WritableHub, tmp_path: Path) -> Publisher:
    publisher = Publisher(hub, tmp_path / "files")
    for number in range(3):
        publisher.write(SHARD.format(number, number), bytes([number]) * 5000)
    publisher.write(MANIFEST, b"small")
    publisher.write("README.md", b"---\nlicense: mit\n---\n")
    publisher.write("croissant.json", b"{}")
    return publisher


def test_data_comes_before_the_card_in_few_commits(
    hub: WritableHub, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "COMMIT_BYTES", 10_006)
    publisher.publish()
    repo = hub.repos[REPO]
    assert [len(commit.added) for commit in repo.commits] == [3, 1, 2]
    assert repo.commits[-1].added == ["README.md", "croissant.json"]
    assert [commit[:2] for commit in publisher.commits] == [(1, 3), (2, 3), (3, 3)]
    assert {name: repo.files[name] for name in repo.files if name != ".gitattributes"} == {
        str(path.relative_to(publisher.folder)): path.read_bytes()
        for path in publisher.folder.rglob("*")
        if path.is_file()
    }


def test_a_repeat_sends_the_difference_and_deletes_what_is_gone(hub: WritableHub, publisher: Publisher) -> None:
    publisher.publish()
    assert not publisher.plan().has_changes
    stored = dict(hub.puts)
    hub.repos[REPO].files["notes.txt"] = b"of the owner"
    (publisher.folder / SHARD.format(2, 2)).unlink()
    publisher.write(SHARD.format(2, 7), b"7" * 5000)
    publisher.write(MANIFEST, b"other")
    publisher.publish()
    repo = hub.repos[REPO]
    assert sorted(hub.puts.values()) == [1, 1, 1, 1] and dict(hub.puts).items() >= stored.items()
    assert repo.commits[-1].deleted == [SHARD.format(2, 2)]
    assert repo.files["notes.txt"] == b"of the owner" and repo.files[MANIFEST] == b"other"
    assert len(repo.commits) == 4


def test_large_files_go_in_parts(hub: WritableHub, publisher: Publisher) -> None:
    hub.part_bytes = 2000
    publisher.publish()
    assert len(hub.parts) == 9 and sorted(hub.puts.values()) == [1, 1, 1] and not publisher.plan().has_changes


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("/commit/", Fault(times=2, status=429, headers={"Retry-After": "0"})),
        ("/commit/", Fault(times=1, hang_up=True)),
        ("/commit/", Fault(times=1, drop=0)),  # committed, but the answer is lost
        ("/storage/", Fault(times=9, hang_up=True)),
        ("/storage/", Fault(times=2, drop=0)),  # stored, but the answer is lost
        ("/preupload/", Fault(times=2, status=503)),
        ("/objects/batch", Fault(times=1, status=500)),
        ("/tree/", Fault(times=1, hang_up=True)),
        ("/validate-yaml", Fault(times=1, hang_up=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_passes_is_waited_for(hub: WritableHub, publisher: Publisher, word: str, fault: Fault) -> None:
    hub.faults[word] = fault
    publisher.publish()
    repo = hub.repos[REPO]
    assert fault.times == 0 and not publisher.plan().has_changes
    assert len(repo.commits) == 2, "an answer that was lost is not committed again"
    assert all("signed_secret" not in why and TOKEN not in why for _, why in publisher.waits)


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (401, "does not know the token", "HF_TOKEN"),
        (402, "no room left for private data", "without --private"),
        (403, "does not let this token write to someone/pairs", "right to write"),
        (413, "too large", "--shard-mb"),
        (400, "refuses", "-v"),
    ],
)
def test_a_refusal_is_one_clear_error(
    hub: WritableHub, publisher: Publisher, status: int, message: str, hint: str
) -> None:
    hub.faults["/commit/"] = Fault(times=99, status=status)
    with pytest.raises(PublishError) as caught:
        publisher.publish()
    assert message in caught.value.message and hint in (caught.value.hint or "")
    assert TOKEN not in str(caught.value) and "\n" not in str(caught.value)
    assert hub.faults["/commit/"].times == 98, "it is not tried again"


def test_a_limit_of_hours_is_said_and_what_was_sent_stays(hub: WritableHub, publisher: Publisher) -> None:
    hub.faults["/commit/"] = Fault(times=1, status=429, headers={"Retry-After": "86400"})
    with pytest.raises(PublishError, match="takes no more for now"):
        publisher.publish()
    assert not hub.repos[REPO].commits and sum(hub.puts.values()) == 3
    publisher.publish()
    assert sorted(hub.puts.values()) == [1, 1, 1]


def test_a_data_set_of_others_is_left_alone(hub: WritableHub, publisher: Publisher) -> None:
    hub.repos[REPO].files |= {"README.md": b"# Mine\n", "train.csv": b"a,b\n"}
    with pytest.raises(PublishError, match="did not publish"):
        publisher.publish()
    assert not hub.repos[REPO].commits


def test_what_is_no_hub_is_said(hub: WritableHub, publisher: Publisher) -> None:
    hub.close()
    with pytest.raises(PublishError, match="cannot be reached"):
        publisher.publish()
