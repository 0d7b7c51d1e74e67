# Installs what is missing; read by tests/all.sh and examples/quickstart.sh:
#
#     . tests/need.sh
#     need cargo nbdkit nbdinfo …
#
# Asks for programs, not for packages. As root the Debian packages of missing programs are installed, and apt is
# not called when nothing is missing. Otherwise one line names what is missing, and the script ends with 3.

# The package of a program.
package_of() {
    case $1 in
        gcc) echo gcc libc6-dev ;;
        pkg-config) echo pkg-config ;;
        nbdkit) echo nbdkit ;;
        nbdinfo | nbdcopy | nbdfuse) echo libnbd-bin ;;
        nbdsh | python3-libnbd) echo python3-libnbd ;;
        qemu-img | qemu-io | qemu-nbd) echo qemu-utils ;;
        # In newer releases it comes with qemu-utils, which is installed first.
        qemu-storage-daemon) echo qemu-system-common ;;
        mkfs.ext4 | fsck.ext4 | e2fsck | debugfs) echo e2fsprogs ;;
        mkfs.xfs | xfs_io) echo xfsprogs ;;
        mkfs.btrfs) echo btrfs-progs ;;
        setfacl) echo acl ;;
        setfattr) echo attr ;;
        fio) echo fio ;;
        nbd-server | nbd-client) echo "$1" ;;
        ddrescuelog) echo gddrescue ;;
        bmaptool) echo bmap-tools ;;
        era_* | thin_*) echo thin-provisioning-tools ;;
        fusermount3) echo fuse3 ;;
        systemd-analyze | systemd-socket-activate) echo systemd ;;
        promtool) echo prometheus ;;
        losetup | flock | script | addpart | mkswap | fsfreeze) echo util-linux ;;
        swapon) echo mount ;;
        sshd) echo openssh-server ;;
        ssh | ssh-keygen | ssh-agent | ssh-add) echo openssh-client ;;
        # What libssh2 is built with; asked for by the name that pkg-config knows.
        openssl.pc) echo libssl-dev ;;
        *) echo "$1" ;;
    esac
}

# Whether a program is there.
has() {
    case $1 in
        python3-libnbd) /usr/bin/python3 -c 'import nbd' 2>/dev/null ;;
        *.pc) pkg-config --exists "${1%.pc}" 2>/dev/null ;;
        *) command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] ;;
    esac
}

# The programs among the arguments that are missing and not named in MIRROR_SKIP.
missing() {
    for program; do
        case " $(echo "${MIRROR_SKIP-}" | tr ',' ' ') " in
            *" $program "*) continue ;;
        esac
        has "$program" || printf '%s ' "$program"
    done
}

# Cargo may be installed for the user only, outside a shell's PATH.
if ! has cargo && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    export PATH
fi

need() {
    lack=$(missing "$@")
    [ -n "$lack" ] || return 0
    # Rust is not taken from Debian: its compiler is older than the one this is written for.
    if ! has cargo; then
        echo "missing: cargo (Rust 1.88 or newer)" >&2
        exit 3
    fi
    if [ "$(id -u)" != 0 ] || ! has apt-get; then
        echo "missing: $lack(install the packages: $(for p in $lack; do package_of "$p"; done | tr '\n' ' ' | sed 's/ $//'))" >&2
        exit 3
    fi
    echo "installing what is missing: $lack" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >&2 || echo "apt-get update failed; going on with what is known" >&2
    # One by one: a package that cannot be installed does not keep the others away.
    for program in $lack; do
        has "$program" && continue
        # shellcheck disable=SC2046
        apt-get install -q -y --no-install-recommends $(package_of "$program") >&2 ||
            echo "could not install $(package_of "$program") for $program" >&2
    done
    lack=$(missing "$@")
    if [ -n "$lack" ]; then
        echo "still missing: $lack(name them in MIRROR_SKIP to go on without)" >&2
        exit 3
    fi
}
