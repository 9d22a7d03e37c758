# Read by `up` and `down`: where the cluster lies, and which processes are its own.
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
umask 022
ROOT=${IRMAS_CLUSTER:-/var/tmp/irmas-cluster-$UID}
export SLURM_CONF=$ROOT/slurm.conf # every daemon, step and job of this cluster has it in its environment
CGROUPS=(/sys/fs/cgroup/{freezer,memory}/"irmas-$(cksum <<<"$ROOT" | cut -d' ' -f1)")
T0=${EPOCHREALTIME/./}

say() { local t=$(((${EPOCHREALTIME/./} - T0) / 100000)); printf '%3d.%d s  %s\n' $((t / 10)) $((t % 10)) "$*"; }
die() { echo "${0##*/}: $*" >&2; exit 2; }

[[ $ROOT =~ ^(/[A-Za-z0-9._-]+){2,}$ && ${#ROOT} -le 80 ]] ||
  die "IRMAS_CLUSTER must be an absolute path of at most 80 letters, digits, '.', '_', '-', two folders deep: '$ROOT'"
[[ ! -e $ROOT || -O $ROOT && (-z $(ls -A "$ROOT") || $(cat "$ROOT/env.sh" 2>&1) == "export SLURM_CONF=$SLURM_CONF") ]] ||
  die "$ROOT is in use for something else: set IRMAS_CLUSTER to a new folder"

ours() { # PATTERN [ARGUMENTS]: the pids of this cluster's processes with such a name (a zombie has no environment)
  local file
  for file in $(grep -lzxFs "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ); do
    file=${file%/environ}
    if [[ $(cat "$file/comm") == $1 && $(tr '\0' ' ' <"$file/cmdline") == *"${2:-}"* ]]; then echo "${file#/proc/}"; fi
  done 2>/dev/null
}
