"""Start the playground: `python -m playground [--runs DIR] [--port N] [--no-browser] [--lan]`. It listens on this
machine only; with `--lan` on the network, behind a password.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path

from playground import loopback
from tunelab.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR
from tunelab.machine import libraries

EVERYWHERE = "0.0.0.0"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m playground", description=__doc__)
    parser.add_argument("--runs", type=Path, help="where runs live (default: the user's data folder)")
    parser.add_argument("--port", type=port_number, default=7860, help="the first port to try")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--lan", action="store_true", help="let this network in, by a password that is made and shown")
    options = parser.parse_args()

    uploads = tempfile.mkdtemp(prefix="playground-")
    prepare(uploads)
    end_orderly()
    try:
        return serve(options.runs, options.port, open_browser=not options.no_browser, lan=options.lan)
    except KeyboardInterrupt:  # before the page was up, or a second time
        return EXIT_INTERRUPTED
    finally:
        shutil.rmtree(uploads, ignore_errors=True)


def port_number(text: str) -> int:
    """A port, of what stands on the command line; 0: any that is free."""
    if text.isascii() and text.isdigit() and int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: allowed are 0 (any that is free) to 65535")


def prepare(uploads: str) -> None:
    """What has to be said before Gradio is imported: nothing is reported to anybody, uploads stay in a folder of our
    own, and the page is reached without a proxy."""
    libraries.prepare()
    loopback.exempt()
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads, "HF_HUB_DISABLE_TELEMETRY": "1"}


def end_orderly() -> None:
    """Have whoever ends this process, or closes its terminal, end it as Ctrl-C does: uploads are removed then."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # else nohup had it ignored
            signal.signal(number, signal.default_int_handler)


def serve(root: Path | None, port: int, open_browser: bool, lan: bool = False) -> int:
    """The exit code, once the page has been closed with Ctrl-C."""
    with loopback.without_proxies():
        from playground import app, look, server
    from playground.door import Door
    from playground.front import Front
    from playground.jobs import Jobs
    from tunelab import Comparer, UserError, runs_root

    comparer = Comparer(runs_root(root))
    jobs = Jobs(root, on_nearly_done=comparer.prepare)
    try:
        key = jobs.owners.key  # makes the folder, and writes into it
    except UserError as error:
        print(error)
        return EXIT_USER_ERROR
    except OSError as error:
        print(f"Runs can't be kept in {jobs.root}: {error.strerror}. Choose another folder with --runs DIR.")
        return EXIT_USER_ERROR
    listener = server.listener(EVERYWHERE if lan else loopback.HOST, port)
    port, password = listener.getsockname()[1], new_password() if lan else None
    page = app.build(jobs, comparer)
    web = Front(server.application(page, jobs, look.look()), look.scripts())
    running = server.Server(Door(web, key, password), listener)
    try:
        running.start()
        jobs.watch()
        url = f"http://{loopback.HOST}:{port}/?key={key}"
        print(greeting(url, jobs.root, port, password), flush=True)
        if open_browser:
            webbrowser.open(url)
        threading.Thread(target=warm_up, daemon=True, name="warm-up").start()
        running.wait()
    except KeyboardInterrupt:
        say_goodbye()
    finally:
        jobs.end()
        running.stop()
    return 0


def say_goodbye() -> None:
    """Say that the page is closed, to whoever still reads what it prints."""
    try:
        print("The page is closed.", flush=True)
    except BrokenPipeError:  # nor shall Python try again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def greeting(url: str, root: Path, port: int, password: str | None) -> str:
    """What the terminal says once the page is up."""
    lines = [f"The playground is up: {url}"]
    if password:
        lines.append(f"Others in this network open http://{address_in_network()}:{port}")
        lines.append(f"Password: {password} (any user name). Who knows it can train and compare on this machine.")
    lines.append(f"Runs are kept in {root}. Ctrl-C ends the page, not a training.")
    return "\n".join(lines)


def new_password() -> str:
    """Sixteen letters and digits that are not mistaken for each other, in groups: 78 bits."""
    drawn = "".join(secrets.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(16))
    return "-".join(drawn[place : place + 4] for place in range(0, 16, 4))


def address_in_network() -> str:
    """This machine's address as its network sees it; nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address that nobody has
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def warm_up() -> None:
    """Import what the first preview or comparison needs, while the reader still reads."""
    libraries.load()


if __name__ == "__main__":
    sys.exit(main())
