#!/usr/bin/env bash
# Starts Slurm with this machine as its only node, for tests of `srun` in a container or a virtual machine of your own: it writes
# /etc/slurm/slurm.conf. As root, with Debian's slurm-wlm and munge.
#
#   scripts/one_node_slurm.sh          starts it, unless it runs
#   scripts/one_node_slurm.sh --stop   ends what it started
#
# Exit status: 0 `srun` works (or is stopped), 1 it does not.
set -euo pipefail

state=/var/tmp/one-node-slurm

works() { timeout 10 srun --ntasks=1 true 2>/dev/null; }

if [ "${1:-}" = --stop ]; then
  for name in slurmd slurmctld munged; do
    if [ -f "$state/$name.pid" ]; then kill "$(cat "$state/$name.pid")" 2>/dev/null || true; fi
  done
  rm -rf "$state"
  exit 0
fi

if works; then exit 0; fi
if [ -e /etc/slurm/slurm.conf ] && [ ! -e "$state" ]; then
  echo "one_node_slurm.sh: /etc/slurm/slurm.conf is of another Slurm, and is left as it is" >&2
  exit 1
fi

mkdir -p "$state/ctld" "$state/d" /etc/slurm /run/munge
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=pmix
ReturnToService=2
SelectType=select/cons_tres
# More tasks than cores: tests oversubscribe.
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES OverSubscribe=FORCE:8 State=UP
CONF

[ -f /etc/munge/munge.key ] || /usr/sbin/mungekey --create
chown munge: /etc/munge/munge.key /run/munge
if ! munge -n >/dev/null 2>&1; then
  runuser -u munge -- /usr/sbin/munged
  cp /run/munge/munged.pid "$state/munged.pid" 2>/dev/null || true
fi
slurmctld
slurmd
for _ in $(seq 30); do
  if works; then exit 0; fi
  sleep 1
done
echo "one_node_slurm.sh: srun does not work:" >&2
timeout 10 srun --ntasks=1 true >&2 || true
exit 1
