#!/usr/bin/env bash
# Boots a real systemd and runs one command in it, as root; what it changes is thrown away.
#
#   run-in-systemd.sh [--timeout SECONDS] [--see DIR]... COMMAND [ARGUMENT...]
#
# The instance has its own process, mount, cgroup, network, IPC and host name
# spaces. Its root is the machine's, under an overlay in memory; of the machine's
# units it has none but the few written below, so that it boots in less than a
# second and nothing of the machine is started twice. DIR is to be visible inside
# (read-only) also where it is on another file system than the root.
#
# Exit code: the command's; 77 if this machine does not let us (standard error
# tells why); 124 if it took too long; 125 if systemd ended before the command did.
set -euo pipefail

skip() {
	echo "run-in-systemd: $*" >&2
	exit 77
}

# The units of the instance. What they have in common with the usual ones is what
# the default dependencies of every other unit ask for.
write_units() {
	local units=$1 target
	rm -rf "$units"
	mkdir -p "$units"
	for target in sysinit basic shutdown multi-user; do
		printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >"$units/$target.target"
	done
	cat >"$units/command.service" <<-UNIT
		[Unit]
		Description=The command that is run here
		DefaultDependencies=no
		SuccessAction=exit-force
		FailureAction=exit-force
		[Service]
		Type=oneshot
		ExecStart=/bin/bash /run/outside/command
		StandardOutput=file:/run/outside/stdout
		StandardError=file:/run/outside/stderr
		TimeoutStartSec=infinity
	UNIT
}

# A /dev of our own: systemd changes what it finds there.
fill_dev() {
	local dev=$1 node
	mount -t tmpfs -o mode=755,nosuid tmpfs "$dev"
	for node in null zero full random urandom tty; do
		: >"$dev/$node"
		mount --bind "/dev/$node" "$dev/$node"
	done
	mkdir "$dev/pts" "$dev/shm"
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$dev/pts"
	mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$dev/shm"
	ln -s pts/ptmx "$dev/ptmx"
	ln -s /proc/self/fd "$dev/fd"
}

# Inside the new namespaces, as their process 1: make the root, go there, become systemd.
inside() {
	local work=$1 systemd=$2 dir
	shift 2
	local root=$work/root layers=$work/layers
	mount --make-rprivate /
	mount -t tmpfs -o mode=755 tmpfs "$layers"
	mkdir "$layers/upper" "$layers/scratch"
	mount -t overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/scratch" overlay "$root"
	for dir in "$@"; do
		[[ $(stat -c %m "$dir") == / ]] && continue
		mkdir -p "$root$dir"
		mount --bind "$dir" "$root$dir"
		mount -o remount,bind,ro "$root$dir"
	done
	mount -t proc proc "$root/proc"
	mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
	mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
	fill_dev "$root/dev"
	mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
	mkdir "$root/run/outside"
	mount --bind "$work/io" "$root/run/outside"
	write_units "$root/etc/systemd/system"
	: >"$root/etc/fstab"
	cd "$root"
	mkdir -p .before
	pivot_root . .before
	umount --lazy /.before
	mount --make-rshared / # as services expect it; pivot_root would have refused
	exec env -i PATH="$PATH" container=namespaces SYSTEMD_UNIT_PATH=/etc/systemd/system \
		"$systemd" --system --unit=command.service --log-target=console --show-status=no \
		</dev/null >/run/outside/boot 2>&1
}

if [[ ${1-} == --inside ]]; then
	inside "${@:2}"
fi

timeout=60
see=()
while [[ ${1-} == --* ]]; do
	case $1 in
	--timeout) timeout=$2 ;;
	--see) see+=("$(realpath "$2")") ;;
	*)
		echo "run-in-systemd: unknown option $1" >&2
		exit 2
		;;
	esac
	shift 2
done

((EUID == 0)) || skip "only root may make the namespaces"
[[ -x $(command -v unshare) ]] || skip "there is no unshare"
systemd=
for found in /usr/lib/systemd/systemd /lib/systemd/systemd; do
	[[ -x $found ]] && systemd=$found && break
done
[[ $systemd ]] || skip "there is no systemd"
cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[[ $cgroups ]] || skip "no cgroup2 hierarchy is mounted"
cgroup=$cgroups$(sed -n 's/^0:://p' /proc/self/cgroup)/jobd-test-$$

work=$(mktemp -d /tmp/in-systemd.XXXXXX)
clean_up() {
	local left=100
	# The kernel takes a moment to let go of the last processes.
	until find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || ((left-- == 0)); do
		sleep 0.02
	done
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT
mkdir "$work/root" "$work/layers" "$work/io"
mkdir "$cgroup" 2>/dev/null || skip "no cgroup can be made in $cgroups"
unshare --mount --pid --fork --net --ipc --uts --cgroup true 2>/dev/null ||
	skip "namespaces cannot be made here"

{
	printf 'export PATH=%q HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1\n' "$PATH"
	printf 'cd %q\nexec' "$PWD"
	printf ' %q' "$@"
	echo
} >"$work/io/command"

# Only in the new cgroup, so that the cgroup namespace begins there.
code=0
timeout --foreground --signal=KILL "$timeout" \
	bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' enter "$cgroup" \
	unshare --mount --pid --fork --kill-child --net --ipc --uts --cgroup \
	bash "${BASH_SOURCE[0]}" --inside "$work" "$systemd" ${see[@]+"${see[@]}"} || code=$?
[[ -f $work/io/stdout ]] && cat "$work/io/stdout"
[[ -f $work/io/stderr ]] && cat "$work/io/stderr" >&2
if ((code == 137)); then
	echo "run-in-systemd: not done after $timeout s" >&2
	code=124
elif [[ ! -f $work/io/boot ]]; then
	skip "a root for it cannot be made here"
elif [[ ! -f $work/io/stdout ]]; then
	echo "run-in-systemd: systemd ended (exit code $code) before it ran the command" >&2
	code=125
fi
((code != 124 && code != 125)) || tail -n 40 "$work/io/boot" >&2
exit "$code"
