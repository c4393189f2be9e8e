"""Stock python-tuf at a hub's signed repository: at a mirror of it with python-tuf's own fetcher, and at the hub itself
over HTTPS with a token.

One JSON object on standard input says where and what; one on standard output tells what happened, step by step.
"""
import functools, hashlib, http.server, json, pathlib, ssl, sys, threading, urllib.error, urllib.request

from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater

asked = json.load(sys.stdin)
work = pathlib.Path(asked["folder"])


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class WithToken(FetcherInterface):
    """How a program gets into the hub: its authority, and a token."""

    def __init__(self):
        self.context = ssl.create_default_context(cafile=asked["authority"])
        self.headers = {"authorization": "Bearer " + pathlib.Path(asked["token"]).read_text().strip()}

    def _fetch(self, url):
        wanted = urllib.request.Request(url, headers=self.headers)
        try:
            answer = urllib.request.urlopen(wanted, context=self.context, timeout=60)
        except urllib.error.HTTPError as error:
            raise DownloadHTTPError(f"{url}: {error}", error.code) from error
        return iter(functools.partial(answer.read, 1 << 16), b"")


def fetch(name, base, fetcher=None):
    """Refreshes a store of that name, which pins the first root alone, and downloads all that was asked for."""
    metadata, targets = work / name / "metadata", work / name / "targets"
    fresh = not metadata.exists()
    metadata.mkdir(parents=True, exist_ok=True)
    targets.mkdir(exist_ok=True)
    root = pathlib.Path(asked["root"]).read_bytes() if fresh else None
    updater = Updater(
        str(metadata), base + "metadata/", str(targets), base + "targets/", fetcher=fetcher, bootstrap=root
    )
    try:
        updater.refresh()
        got = {}
        for path in asked["targets"]:
            info = updater.get_targetinfo(path)
            if info is None:
                got[path] = None
                continue
            content = pathlib.Path(updater.download_target(info)).read_bytes()
            got[path] = {
                "length": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "custom": info.unrecognized_fields.get("custom"),
            }
        versions = {
            role: json.loads((metadata / f"{role}.json").read_bytes())["signed"]["version"]
            for role in ("root", "targets", "snapshot", "timestamp")
        }
        return {"targets": got, "versions": versions}
    except RepositoryError as error:
        return {"refused": type(error).__name__, "why": str(error)}


mirror = pathlib.Path(asked["mirror"])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(mirror)))
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}/"

told = {"hub": fetch("hub", asked["hub"], WithToken()), "mirror": fetch("mirror", base)}
# A mirror in wrong hands: it changes a package, then it goes back to what it had before.
path = asked["targets"][0]
changed = next((mirror / "targets" / path).parent.glob("*." + path.rsplit("/", 1)[1]))
good = changed.read_bytes()
changed.write_bytes(bytes(len(good)))
told["changed"] = fetch("other", base)
changed.write_bytes(good)
for file in (mirror / "metadata").iterdir():
    older = pathlib.Path(asked["older"]) / "metadata" / file.name
    if older.is_file():
        file.write_bytes(older.read_bytes())
told["back"] = fetch("mirror", base)
json.dump(told, sys.stdout)
