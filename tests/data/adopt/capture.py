"""Has drbd-utils and iproute2 read what is beside this file; as root, with drbdadm, from anywhere.

A namespace lends the name and the addresses of the how-to's server; no kernel module is needed.

But for show.txt and show-several.txt: that is ``drbdsetup show`` of machines of the lab, without the secret's line.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
MACHINE = """\
hostname server
ip tuntap add dev tun0 mode tun
ip address add 10.89.33.1 peer 10.89.33.2 dev tun0
ip link set tun0 up
"$@"
"""
TODAY = ("env", "__DRBD_NODE__=-", "drbdadm")
OF_8_3 = ("/usr/lib/drbd/drbdadm-83",)


def catch(name: str, *argv: str, remove: str = "") -> None:
    """Keep what a program prints as NAME, and what it complains of as NAME.stderr; without the scratch directory."""
    done = subprocess.run(
        ["unshare", "--uts", "--net", "sh", "-ec", MACHINE, "sh", *argv],
        env=os.environ | {"DRBD_DRIVER_VERSION_OVERRIDE": "8.4.11", "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(f"{name}: exit code {done.returncode}", file=sys.stderr)
    for path, text in ((HERE / name, done.stdout), (HERE / f"{name}.stderr", done.stderr)):
        path.unlink(missing_ok=True)
        if text and (done.returncode or path.name == name):
            path.write_text(text.replace(remove, "/etc") if remove else text)


def catch_dump(name: str, parser: tuple[str, ...], config: Path, remove: str = "") -> None:
    catch(name, *parser, "-c", str(config), "dump-xml", remove=remove)


def main() -> None:
    catch("addresses.json", "ip", "-json", "-4", "address", "show")
    others = HERE / "others"
    catch_dump("not-adoptable.xml", TODAY, others / "not-adoptable.conf", str(others))
    catch_dump("words-of-8.3.xml", TODAY, others / "words-of-8.3.conf", str(others))
    catch_dump("words-of-8.3-83.xml", OF_8_3, others / "words-of-8.3.conf", str(others))
    with tempfile.TemporaryDirectory() as scratch:
        etc = Path(scratch) / "etc"
        shutil.copytree(HERE / "howto", etc)
        catch_dump("howto-exactly.xml", TODAY, etc / "drbd.conf", str(etc))
        common = etc / "drbd.d/global_common.conf"
        common.write_text(common.read_text().replace("csum-alg", "csums-alg"))
        catch_dump("howto.xml", TODAY, etc / "drbd.conf", str(etc))
        catch_dump("howto-83.xml", OF_8_3, etc / "drbd.conf", str(etc))
        for flavour in ("server", "backup"):
            shutil.copy(HERE / "adopted" / flavour / "0_test_a.res", etc / "drbd.d")
            catch_dump(f"adopted-{flavour}.xml", TODAY, etc / "drbd.conf", str(etc))


if __name__ == "__main__":
    main()
