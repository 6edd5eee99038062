"""Make every system call on files in its working directory; print what each returned.

A script for inside the walls, standard library only: the same outside and inside, unless
something is broken.
"""

# ruff: noqa: PLR0915, PTH101, PTH102, PTH104, PTH106, PTH108, PTH110, PTH116, PTH123, PTH211, SIM115

import ctypes
import fcntl
import json
import os
import stat


def main() -> None:
    said = {}

    def tell(name, call):
        try:
            said[name] = call()
        except OSError as error:
            said[name] = -error.errno

    os.umask(0o027)
    tell(
        "mode",
        lambda: stat.S_IMODE(os.fstat(os.open("m", os.O_CREAT | os.O_WRONLY, 0o666)).st_mode),
    )
    tell("exclusive", lambda: os.open("m", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    tell("directory", lambda: (os.mkdir("d", 0o777), stat.S_IMODE(os.stat("d").st_mode))[1])
    tell("directory again", lambda: os.mkdir("d"))
    tell("no directory", lambda: os.open("m", os.O_DIRECTORY))
    tell("write a directory", lambda: os.open("d", os.O_WRONLY))
    tell("create a directory", lambda: os.open("d", os.O_CREAT | os.O_WRONLY))
    tell("through a file", lambda: os.open("m/x", os.O_RDONLY))
    tell("slash after a file", lambda: os.open("m/", os.O_RDONLY))
    tell("slash to create", lambda: os.open("n/", os.O_CREAT | os.O_WRONLY))
    tell("nothing", lambda: os.open("none", os.O_RDONLY))
    tell("empty", lambda: os.open("", os.O_RDONLY))
    tell("too long", lambda: os.open("x/" * 2047 + "yy", os.O_RDONLY))
    tell("long name", lambda: os.open("x" * 256, os.O_RDONLY))
    tell("bad directory", lambda: os.open("m", os.O_RDONLY, dir_fd=999))
    os.symlink("loop", "loop")
    os.symlink("made-by-link", "dangling")
    os.symlink("d", "to-d")
    tell("loop", lambda: os.open("loop", os.O_RDONLY))
    tell("nofollow", lambda: os.open("loop", os.O_RDONLY | os.O_NOFOLLOW))
    tell("dangling", lambda: os.open("dangling", os.O_RDONLY))
    tell(
        "create by a link",
        lambda: (
            os.close(os.open("dangling", os.O_CREAT | os.O_WRONLY)),
            os.path.exists("made-by-link"),
        )[1],
    )
    tell("exclusive link", lambda: os.open("dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    tell(
        "link with slash",
        lambda: os.fstat(os.open("to-d/", os.O_RDONLY)).st_ino == os.stat("d").st_ino,
    )
    tell(
        "append",
        lambda: (
            os.write(os.open("m", os.O_WRONLY | os.O_APPEND), b"ab"),
            os.write(os.open("m", os.O_WRONLY | os.O_APPEND), b"cd"),
            os.stat("m").st_size,
        )[2],
    )
    tell("truncate", lambda: (os.truncate("m", 3), os.stat("m").st_size)[1])
    tell("truncate a directory", lambda: os.truncate("d", 3))
    tell("inheritable", lambda: os.get_inheritable(os.open("m", os.O_RDONLY)))
    libc = ctypes.CDLL(None, use_errno=True)
    tell("inherited", lambda: os.get_inheritable(libc.open(b"m", os.O_RDONLY)))
    tell(
        "flags",
        lambda: (
            fcntl.fcntl(os.open("m", os.O_RDWR | os.O_APPEND | os.O_NONBLOCK), 3)
            & (os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_TRUNC)
        ),
    )
    tell(
        "temporary", lambda: os.fstat(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o666)).st_mode & 0o777
    )
    tell("remove a directory", lambda: os.unlink("d"))
    tell("remove a file as one", lambda: os.rmdir("m"))
    tell("remove here", lambda: os.rmdir("."))
    tell("rename here", lambda: os.rename(".", "q"))
    tell("rename over a directory", lambda: os.rename("m", "d"))
    tell("rename nothing", lambda: os.rename("none", "q"))
    tell("rename", lambda: (os.rename("m", "r"), os.path.exists("r"))[1])
    tell("link", lambda: (os.link("r", "l"), os.stat("l").st_nlink)[1])
    tell("link again", lambda: os.link("r", "l"))
    tell("chmod", lambda: (os.chmod("l", 0o600), os.stat("r").st_mode & 0o777)[1])
    tell(
        "fchmod",
        lambda: (os.fchmod(os.open("l", os.O_RDONLY), 0o640), os.stat("r").st_mode & 0o777)[1],
    )
    tell("chown", lambda: os.chown("l", -1, -1))
    tell("fifo", lambda: (os.mkfifo("f", 0o666), stat.S_IMODE(os.stat("f").st_mode))[1])
    tell(
        "attribute",
        lambda: (os.setxattr("l", "user.a", b"v" * 5000), len(os.getxattr("r", "user.a")))[1],
    )
    tell("no attribute", lambda: os.removexattr("l", "user.b"))
    tell("attribute gone", lambda: (os.removexattr("l", "user.a"), os.listxattr("r"))[1])
    tell("null", lambda: os.write(os.open("/dev/null", os.O_WRONLY), b"x"))
    tell("terminal", lambda: os.open("/dev/tty", os.O_RDWR))
    tell("zeroes", lambda: len(os.read(os.open("/dev/zero", os.O_RDONLY), 8)))
    tell(
        "own",
        lambda: (
            os.read(os.open("/proc/self/comm", os.O_RDONLY), 6)
            == open("/proc/thread-self/comm", "rb").read(6)
        ),
    )
    tell("own id", lambda: int(open("/proc/self/stat").read().split()[0]) == os.getpid())
    tell("mounts", lambda: len(open("/proc/mounts").read()) > 0)
    tell("null address", lambda: libc.open(None, 0) and -ctypes.get_errno())
    tell("bad address", lambda: libc.open(ctypes.c_void_p(1), 0) and -ctypes.get_errno())
    tell("bytes", lambda: os.close(os.open(b"\xff\xfe", os.O_CREAT | os.O_WRONLY)))
    r, w = os.pipe()
    tell(
        "pipe",
        lambda: (
            os.write(w, b"p"),
            os.read(os.open(f"/proc/self/fd/{r}", os.O_RDONLY), 1).decode(),
        )[1],
    )
    os.mkdir("gone")
    held = os.open("gone/x", os.O_CREAT | os.O_RDWR)
    os.unlink("gone/x")
    tell("removed", lambda: os.read(os.open(f"/dev/fd/{held}", os.O_RDONLY), 1).decode())
    os.chdir("gone")
    os.rmdir("../gone")
    tell("in a removed directory", lambda: os.open("x", os.O_CREAT | os.O_WRONLY))
    print(json.dumps(said))


if __name__ == "__main__":
    main()
