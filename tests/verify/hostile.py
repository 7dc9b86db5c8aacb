"""Bodies of the function twice(n) that do what a program must not do; none may pass its tests or change anything.

``programs(outside)`` and ``endless(outside)`` name them; ``outside`` is a folder that they try to change, with a file
kept.txt and a folder sub.
"""

from pathlib import Path

RETURN = "    return 2 * n\n"

CHANGES = {
    "open to write": "open(OUT + '/new.txt', 'w')",
    "open to append": "open(KEPT, 'a')",
    "open to read and write": "open(KEPT, 'r+')",
    "os.open": "os.open(OUT + '/new.txt', os.O_WRONLY | os.O_CREAT)",
    "pathlib": "pathlib.Path(OUT, 'new.txt').write_text('x')",
    "remove": "os.remove(KEPT)",
    "unlink": "pathlib.Path(KEPT).unlink()",
    "rmdir": "os.rmdir(OUT + '/sub')",
    "rmtree": "shutil.rmtree(OUT)",
    "mkdir": "os.mkdir(OUT + '/new')",
    "rename away": "os.rename(KEPT, 'mine')",
    "rename to": "open('mine', 'w').close()\n    os.replace('mine', KEPT)",
    "move": "shutil.move(KEPT, 'mine')",
    "copy": "shutil.copy(KEPT, OUT + '/copy.txt')",
    "symlink": "os.symlink(OUT, 'link')",
    "hard link": "os.link(KEPT, 'link')",
    "chmod": "os.chmod(KEPT, 0)",
    "utime": "os.utime(KEPT, (0, 0))",
    "truncate": "os.truncate(KEPT, 0)",
    "xattr": "os.setxattr(KEPT, 'user.x', b'1')",
    "mkfifo": "os.mkfifo(OUT + '/pipe')",
    "mkfifo of posix": "__import__('posix').mkfifo(OUT + '/pipe')",
    "mknod": "os.mknod(OUT + '/node')",
    "chdir": "os.chdir(OUT)\n    open('new.txt', 'w')",
    "dir_fd open": "fd = os.open(OUT, 0)\n    os.open('new.txt', os.O_WRONLY | os.O_CREAT, dir_fd=fd)",
    "dir_fd open above": "os.mkdir('a')\n    fd = os.open('a', 0)\n"
    "    os.open('../' * 9 + OUT + '/new.txt', 65, dir_fd=fd)",
    "dir_fd remove": "fd = os.open(OUT, os.O_RDONLY)\n    os.remove('kept.txt', dir_fd=fd)",
    "dir_fd remove above": "fd = os.open('.', 0)\n    os.remove('../' * 9 + KEPT, dir_fd=fd)",
    "dir_fd mkdir": "fd = os.open(OUT, os.O_RDONLY | os.O_DIRECTORY)\n    os.mkdir('new', dir_fd=fd)",
    "dir_fd rename": "fd = os.open(OUT, os.O_PATH)\n"
    "    os.rename('kept.txt', 'gone.txt', src_dir_fd=fd, dst_dir_fd=fd)",
    "own root": "open('/proc/self/root' + OUT + '/new.txt', 'w')",
    "sqlite": "import sqlite3\n    sqlite3.connect(OUT + '/new.db').execute('create table t(x)')",
    "sqlite attach": "import sqlite3\n    sqlite3.connect(':memory:').execute(f\"attach '{OUT}/new.db' as a\")",
    "dbm": "import dbm.gnu\n    dbm.gnu.open(OUT + '/new', 'c')",
    "shared memory": "from multiprocessing import shared_memory as m\n    m.SharedMemory('operant-hostile', True, 64)",
    "logging": "import logging\n    logging.FileHandler(OUT + '/log.txt').emit(logging.makeLogRecord({}))",
    "zip": "import zipfile\n    zipfile.ZipFile(OUT + '/new.zip', 'w').close()",
    "memory of itself": "open('/proc/self/mem', 'r+b')",
}
"""Writes, removals and the like outside the program's folder."""

PROCESSES = {
    "fork": "os.fork()",
    "forkpty": "os.forkpty()",
    "fork bomb": "while True:\n        os.fork()",
    "system": "os.system('true')",
    "popen": "os.popen('true')",
    "subprocess": "import subprocess\n    subprocess.run(['true'])",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "exec": "os.execv('/bin/true', ['true'])",
    "multiprocessing": "import multiprocessing\n    multiprocessing.Process(target=print).start()",
    "pty": "import pty\n    pty.spawn('true')",
    "kill the parent": "os.kill(os.getppid(), 15)",
    "kill the group": "os.killpg(0, 9)",
    "signal a thread": "import signal\n    signal.pthread_kill(1, 9)",
    "signal by pidfd": "import signal\n    signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
    "priority of the parent": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "cores of the parent": "os.sched_setaffinity(os.getppid(), {0})",
    "leave the session": "os.setsid()",
    "limits of the parent": "import resource\n    resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "limits": "import resource\n    resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))",
    "ctypes": "import ctypes\n    ctypes.CDLL(None).getpid()",
    "ctypes library": "import ctypes\n    ctypes.CDLL('libc.so.6')",
    "memory at 0": "import ctypes\n    ctypes.string_at(0)",
    "socket": "import socket\n    socket.socket()",
    "connect": "import socket\n    socket.create_connection(('127.0.0.1', 9))",
    "lookup": "import socket\n    socket.getaddrinfo('localhost', 80)",
    "http": "import urllib.request\n    urllib.request.urlopen('http://127.0.0.1:9', timeout=1)",
    "syslog": "import syslog\n    syslog.syslog('x')",
}
"""Other processes, signals, the network, native code."""

READS = {
    "environment": "os.environ['OPERANT_SECRET']",
    "environment of the parent": "assert b'OPERANT' in open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "environment of every process": "for p in os.listdir('/proc'):\n        if p.isdigit() and p != str(os.getpid()):\n"
    "            open(f'/proc/{p}/environ', 'rb').read()\n    assert 0",
    "environment by os.open": "fd = os.open('/proc', 0)\n    os.open(f'{os.getppid()}/environ', 0, dir_fd=fd)",
    "memory of the parent": "open(f'/proc/{os.getppid()}/mem', 'rb')",
}
"""What is the caller's alone."""

PRETENDS = {
    "exit": "exit()",
    "sys.exit": "sys.exit(0)",
    "os._exit": "os._exit(0)",
    "SystemExit": "raise SystemExit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "printing": "print('+' * 33, 'passed', flush=True)\n    raise ValueError",
    "writing to every file": "for fd in range(3, 50):\n        try:\n            os.write(fd, b'+0123456789' * 3)\n"
    "        except OSError:\n            pass\n    os._exit(0)",
    "os._exit replaced": "os._exit = lambda code: None\n    raise ValueError",
    "os.write replaced": "os.write = lambda fd, data: len(data)\n    sys.exit(0)",
    "exit at the end": "import atexit\n    atexit.register(os._exit, 0)\n    raise ValueError",
    "exception hook": "sys.excepthook = lambda *x: os._exit(0)\n    raise ValueError",
    "signal": "import signal\n    signal.signal(signal.SIGALRM, lambda *x: os._exit(0))\n"
    "    signal.raise_signal(signal.SIGALRM)",
    "reading": "return int(input())",
    "recursion": "return twice(n)",
    "wrong": "return 3 * n",
}
"""Ends before the tests do."""

ENDLESS = {
    "loop": "while True:\n        pass",
    "loop that ignores the signal": "import signal\n    signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
    "    while True:\n        pass",
    "loop in a thread": "import threading\n    t = threading.Thread(target=lambda: [0 for _ in iter(int, 1)])\n"
    "    t.start()\n    t.join()",
    "output": "while True:\n        print('x' * 10**6)",
    "memory": "x = [0]\n    while True:\n        x += x",
    "large number": "return 9 ** 9 ** 9",
    "file": "with open('a', 'w') as f:\n        while True:\n            f.write('x' * 10**6)",
    "files": "for i in range(10**9):\n        with open(f'a{i}', 'w') as f:\n            f.write('x' * 10**6)",
    "threads": "import threading\n    while True:\n        threading.Thread(target=threading.Event().wait).start()",
}
"""Use up a limit."""


def body(text: str, outside: Path) -> str:
    """The function's body: the text, then the right answer."""
    head = f"    import os, sys, pathlib, shutil\n    OUT = {str(outside)!r}\n    KEPT = OUT + '/kept.txt'\n"
    return f"{head}    {text}\n{RETURN}"


def programs(outside: Path) -> dict[str, str]:
    """Every program that ends soon: a name, and the body of twice(n)."""
    return {
        name: body(text, outside) for group in (CHANGES, PROCESSES, READS, PRETENDS) for name, text in group.items()
    }


def endless(outside: Path) -> dict[str, str]:
    """Programs that end by a limit."""
    return {name: body(text, outside) for name, text in ENDLESS.items()}
