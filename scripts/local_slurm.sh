#!/usr/bin/env bash
# Starts Slurm with this machine as its only node, or as several that each believe to be one, for tests of `srun` in a container or a
# virtual machine of your own: it writes /etc/slurm/slurm.conf. As root, with Debian's slurm-wlm and munge.
#
#   scripts/local_slurm.sh             starts it, unless it runs
#   scripts/local_slurm.sh --nodes 2   the same with two nodes, node1 and node2
#   scripts/local_slurm.sh --stop      ends what it started
#
# Exit status: 0 `srun` works (or is stopped), 1 it does not.
set -euo pipefail

state=/var/tmp/local-slurm
nodes=1

works() { timeout 10 srun --nodes="$nodes" --ntasks="$nodes" true 2>/dev/null; }

case ${1:-} in
--stop)
  [ -e "$state" ] || exit 0
  for pid in "$state"/slurmd*.pid "$state/slurmctld.pid" "$state/munged.pid"; do
    if [ -f "$pid" ]; then kill "$(cat "$pid")" 2>/dev/null || true; fi
  done
  rm -rf "$state" /etc/slurm/slurm.conf
  exit 0
  ;;
--nodes) nodes=$2 ;;
esac

if works; then exit 0; fi
if [ -e "$state/slurmctld.pid" ] && kill -0 "$(cat "$state/slurmctld.pid")" 2>/dev/null; then
  echo "local_slurm.sh: another number of nodes runs; stop them first (--stop)" >&2
  exit 1
fi
if [ -e /etc/slurm/slurm.conf ] && [ ! -e "$state" ]; then
  echo "local_slurm.sh: /etc/slurm/slurm.conf is of another Slurm, and is left as it is" >&2
  exit 1
fi

first_port=17001
mkdir -p "$state/ctld" /etc/slurm /run/munge
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$state/ctld
SlurmdLogFile=$state/slurmd.%n.log
SlurmctldLogFile=$state/slurmctld.log
SlurmdSpoolDir=$state/d.%n
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=pmix
ReturnToService=2
SelectType=select/cons_tres
# More tasks than cores: tests oversubscribe.
# Each has a daemon of its own at a port of its own.
NodeName=node[1-$nodes] NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=[$first_port-$((first_port + nodes - 1))] CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES OverSubscribe=FORCE:8 State=UP
CONF

[ -f /etc/munge/munge.key ] || /usr/sbin/mungekey --create
chown munge: /etc/munge/munge.key /run/munge
if ! munge -n >/dev/null 2>&1; then
  runuser -u munge -- /usr/sbin/munged
  cp /run/munge/munged.pid "$state/munged.pid" 2>/dev/null || true
fi
slurmctld
for node in $(seq "$nodes"); do
  if [ "$nodes" = 1 ]; then
    slurmd -N node1
  else
    # Nodes do not share /tmp, where daemons of one job would meet.
    mkdir -p "$state/tmp.node$node"
    unshare --mount sh -c 'mount --bind "$1" /tmp && exec slurmd -N "$2"' sh "$state/tmp.node$node" "node$node"
  fi
done
for _ in $(seq 30); do
  if works; then exit 0; fi
  sleep 1
done
echo "local_slurm.sh: srun does not work:" >&2
timeout 10 srun --nodes="$nodes" --ntasks="$nodes" true >&2 || true
exit 1
