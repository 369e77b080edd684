#!/usr/bin/env bash
# One run on a Cloud TPU slice, spot or not; see --help.
set -u

usage() {
  cat <<'END'
usage: launch/tpu_vm.sh [OPTIONS] -- ARGUMENTS

Runs `python -m jaxnlt.main ARGUMENTS` on all workers of a Cloud TPU slice.

  --name NAME        of the TPU and its queued resource  ($TPU_NAME, jaxnlt)
  --zone ZONE        such as europe-west4-b              ($TPU_ZONE)
  --type TYPE        such as v5litepod-16                ($TPU_TYPE)
  --version VERSION  such as v2-alpha-tpuv5-lite         ($TPU_VERSION)
  --project PROJECT  that of gcloud, if not given        ($TPU_PROJECT)
  --setup COMMAND    run on every worker before, from its home: mounts the
                     file system that holds data and workdir ($TPU_SETUP)
  --on-demand        not a spot TPU
  --delete           deletes the TPU when the run has finished
  --dry-run          prints every command and runs none

Requests the TPU if it is not there, installs the last commit of this clone on
all workers (only what git tracks is copied) and runs.  A TPU that is preempted
is requested anew and the run goes on, so --workdir must outlive it: a mounted
file system that all workers share, for instance

  --setup 'mountpoint -q /mnt || sudo mount -t nfs HOST:/share /mnt'

Ctrl-C stops the run after its pending save; the TPU stays, and costs.

Exit status: 0 finished; 75 stopped, the same command goes on; 2 a mistake in
the command; otherwise that of a worker which failed.
END
}

say() {
  printf 'tpu_vm.sh: %s\n' "$1" >&2
}

fail() { # message, status
  say "error: $1"
  exit "${2:-2}"
}

name=${TPU_NAME:-jaxnlt} zone=${TPU_ZONE-} type=${TPU_TYPE-}
version=${TPU_VERSION-} project=${TPU_PROJECT-} setup=${TPU_SETUP:-true}
spot=1 delete=0 dry=0
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --[nztvps]*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --name | --zone | --type | --version | --project | --setup)
      [[ -n ${2-} && $2 != --* ]] || fail "$1: its value is missing"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    --on-demand) spot=0 && shift ;;
    --delete) delete=1 && shift ;;
    --dry-run) dry=1 && shift ;;
    --) break ;;
    *) fail "$1: unknown option; the arguments of jaxnlt.main follow after --" ;;
  esac
done
(($# > 1)) || fail 'the arguments of jaxnlt.main are missing after --'
shift
for option in zone type version; do
  [[ -n ${!option} ]] || fail "--$option: is missing, see --help"
done

# gcloud ----------------------------------------------------------------------

quoted() { # words...; as a shell reads them back
  local word line=''
  for word; do
    if [[ ! $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      word=\'$(printf %s "$word" | sed "s/'/'\\\\''/g")\'
    fi
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

run() { # command...
  if ((dry)); then
    quoted "$@"
  else
    "$@" </dev/null
  fi
}

tpus() { # words of `gcloud compute tpus`...
  run gcloud compute tpus "$@" --zone="$zone" ${project:+"--project=$project"}
}

on_all_workers() { # text that their shells run
  tpus tpu-vm ssh "$name" --worker=all --command="$1"
}

state=''
look() { # sets state; empty: there is no such queued resource
  local attempt
  if ((dry)); then
    tpus queued-resources describe "$name" --format='value(state.state)'
    return
  fi
  for attempt in 1 2 3 4 5; do
    state=$(tpus queued-resources describe "$name" \
      --format='value(state.state)' 2>&1) && return
    if [[ $state == *NOT_FOUND* ]]; then
      state=''
      return
    fi
    say "attempt $attempt to ask for the state of $name: $state"
    sleep 30
  done
  fail "$name: its state cannot be had" 1
}

request() {
  local kind=()
  ((spot)) && kind=(--spot)
  tpus queued-resources create "$name" --node-id="$name" \
    --accelerator-type="$type" --runtime-version="$version" \
    ${kind[0]+"${kind[@]}"}
}

# The TPU ---------------------------------------------------------------------

installed=0
provide() {
  while look; do
    case $state in
      ACTIVE) break ;;
      '')
        installed=0
        request || fail "$name: could not be requested" 1
        ((dry)) && state=ACTIVE && break
        ;;
      SUSPENDED | SUSPENDING)
        say "$name was preempted and is requested anew"
        tpus queued-resources delete "$name" --force --quiet ||
          fail "$name: could not be deleted" 1
        ;;
      FAILED) fail "$name: its request has failed; delete it" 1 ;;
      *) say "$name is $state" && sleep 30 ;;
    esac
  done
  ((installed)) || install
}

# uv, for the images come with a Python that is too old.
readonly INSTALL='set -e
mkdir -p ~/jaxnlt
tar -xzf ~/jaxnlt.tar.gz -C ~/jaxnlt
cd ~/jaxnlt
PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q --user uv
python3 -m uv venv -q --allow-existing --python 3.12 .venv
python3 -m uv pip install -q --python .venv/bin/python ".[tpu]"'

install() {
  local root attempt
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit
  git -C "$root" diff --quiet HEAD ||
    say 'changes that are not committed are left behind'
  run git -C "$root" archive --format=tar.gz -o "$folder/jaxnlt.tar.gz" HEAD ||
    fail "$root: is not a clone with a commit" 1
  # A TPU is ACTIVE before its workers let anyone in.
  for attempt in 1 2 3 4 5; do
    if tpus tpu-vm scp "$folder/jaxnlt.tar.gz" "$name:" --worker=all &&
      on_all_workers "$INSTALL" && on_all_workers "$setup"; then
      installed=1
      return
    fi
    say "attempt $attempt to install on $name has failed"
    sleep 30
  done
  look
  [[ $state == ACTIVE ]] && fail "$name: the package cannot be installed" 1
  provide
}

# The run ---------------------------------------------------------------------

readonly MARK='tpu_vm.sh: worker ended with status'

# A connection that broke leaves a run behind: it is stopped first.  gcloud does
# not hand on the status of every worker: they say it themselves.
remote() { # command...
  cat <<END
cd ~/jaxnlt && . .venv/bin/activate || exit
exec 9>>~/jaxnlt.lock
flock -n 9 || { kill -TERM \$(cat ~/jaxnlt.pid); flock -w 300 9; } || exit
export JAXNLT_DISTRIBUTED=auto
$(quoted "$@") &
echo \$! >~/jaxnlt.pid
wait \$!
echo $MARK \$?
END
}

run_once() { # command...; sets statuses, one a worker that could say it
  on_all_workers "$(remote "$@")" | tee "$folder/log" &
  pipe=$!
  while :; do
    told=0
    wait "$pipe"
    ((told)) || break
  done
  pipe=''
  statuses=$(sed -n "s/^.*$MARK \([0-9]*\).*\$/\1/p" "$folder/log" | sort -nu)
}

stop() {
  [[ -n $pipe ]] || finish 75
  told=1 asked=1
  # shellcheck disable=SC2016  # the workers shall expand it
  on_all_workers 'kill -TERM $(cat ~/jaxnlt.pid)'
}

finish() { # status
  local command=(queued-resources delete "$name" --force --quiet)
  if (($1 == 0 && delete)); then
    tpus "${command[@]}" || fail "$name: could not be deleted" 1
  elif ((!dry)); then
    say "$name stays and costs; to delete it: $(dry=1 tpus "${command[@]}")"
  fi
  exit "$1"
}

run_until_done() { # command...
  local statuses pipe='' told asked=0 silent=0 worst
  folder=$(mktemp -d) || exit
  trap 'rm -rf "$folder"' EXIT
  if ((dry)); then
    provide
    on_all_workers "$(remote "$@")"
    echo '# after 75: the last command again; after preemption, all of them after'
    tpus queued-resources delete "$name" --force --quiet
    exit 0
  fi
  trap stop TERM INT HUP
  while provide; do
    run_once "$@"
    [[ $statuses == 0 ]] && finish 0
    grep -qx 2 <<<"$statuses" && finish 2
    worst=$(grep -vx -e 0 -e 75 <<<"$statuses" | head -n 1)
    ((asked)) && finish "${worst:-75}"
    # 75 ends all workers alike; otherwise one may have been taken from them,
    # which takes a minute to be seen.
    if [[ $statuses != 75 ]]; then
      sleep 60
      look
      [[ $state == ACTIVE && -n $worst ]] && finish "$worst"
    fi
    if [[ -n $statuses ]]; then
      silent=0
    elif (((silent += 1) == 5)); then
      fail "$name: no worker says how the run has ended" 1
    fi
    say "the run goes on from its last checkpoint"
  done
}

run_until_done python -m jaxnlt.main "$@"
