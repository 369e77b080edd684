#!/usr/bin/env bash
# One run in several processes on this machine; see --help.
set -u

usage() {
  cat <<'END'
usage: launch/local.sh [-n PROCESSES] [-d DEVICES] [-g SECONDS] -- ARGUMENTS

Runs `python -m jaxnlt.main ARGUMENTS` in PROCESSES processes on this machine.

  -n PROCESSES  how many (1)
  -d DEVICES    devices of each process: GPUs (an equal share of all), or parts
                into which a CPU is divided (1)
  -g SECONDS    what the others get to end by themselves after one has failed
                (30); then they are sent SIGTERM, and at most 5 s later SIGKILL

GPUs are used if nvidia-smi lists any and JAX_PLATFORMS is not cpu; only those
of CUDA_VISIBLE_DEVICES if that is set.  The output of process 0 is shown as it
is, lines of process 1 begin with [1].  SIGTERM, SIGHUP and Ctrl-C stop the run
after its pending save; a second Ctrl-C kills it.

Exit status: 0 finished; 75 stopped, the same command goes on; otherwise that
of the process which failed first (2: a mistake in the command).
END
}

fail() {
  printf 'local.sh: error: %s\n' "$1" >&2
  exit 2
}

# Where we speak: further down stderr is closed to what bash says of its jobs.
exec 3>&2
say() {
  printf 'local.sh: %s\n' "$1" >&3
}

processes=1 devices='' grace=30
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    -n | -d | -g)
      [[ ${2-} =~ ^[1-9][0-9]{0,5}$ ]] ||
        fail "$1: expects a whole number from 1 on, is '${2-}'"
      case $1 in
        -n) processes=$2 ;;
        -d) devices=$2 ;;
        -g) grace=$2 ;;
      esac
      shift 2
      ;;
    --) break ;;
    *) fail "$1: unknown option; the arguments of jaxnlt.main follow after --" ;;
  esac
done
(($# > 1)) || fail "the arguments of jaxnlt.main are missing after --"
shift

# The devices -----------------------------------------------------------------

gpus=()
if [[ ${JAX_PLATFORMS-} != cpu ]] && command -v nvidia-smi >/dev/null; then
  if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    IFS=, read -r -a gpus <<<"$CUDA_VISIBLE_DEVICES"
    [[ ${gpus[0]-} != -1 ]] || gpus=()
  else
    while read -r index; do
      [[ $index =~ ^[0-9]+$ ]] && gpus+=("$index")
    done < <(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null)
  fi
fi

if ((${#gpus[@]})); then
  share=${devices:-$((${#gpus[@]} / processes))}
  ((processes * (share ? share : 1) <= ${#gpus[@]})) ||
    fail "-n $processes${devices:+ -d $devices}: too many for ${#gpus[@]} GPUs"
  ((processes * share == ${#gpus[@]})) || [[ -n $devices ]] ||
    say "uses $((processes * share)) of ${#gpus[@]} GPUs, $share a process"
elif [[ -n $devices ]]; then
  flag=--xla_force_host_platform_device_count=$devices
  export XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }$flag
fi

use_gpus_of() { # process
  ((${#gpus[@]})) || return 0
  local joined
  joined=$(IFS=, && echo "${gpus[*]:$(($1 * share)):share}")
  export CUDA_VISIBLE_DEVICES=$joined
}

# The processes ---------------------------------------------------------------

# What another launcher may have left.
unset JAXNLT_COORDINATOR JAXNLT_NUM_PROCESSES JAXNLT_PROCESS_ID
unset JAXNLT_DISTRIBUTED

label() { # prefix; ends with its input, not by a signal: no last word is lost
  trap '' TERM INT HUP
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    printf '%s%s\n' "$1" "$line"
  done
}

start() { # process, command...
  local i=$1
  shift
  use_gpus_of "$i"
  export JAXNLT_PROCESS_ID=$i
  if ((i)); then
    mkfifo "$folder/out$i" "$folder/err$i"
    label "[$i] " <"$folder/out$i" &
    readers+=("$!")
    label "[$i] " <"$folder/err$i" >&2 &
    readers+=("$!")
    # Job control gives it a process group: Ctrl-C reaches it through us alone,
    # and what it has started ends with it.
    set -m
    "$@" </dev/null >"$folder/out$i" 2>"$folder/err$i" 3>&- &
  else
    set -m
    "$@" </dev/null 3>&- &
  fi
  pids[i]=$!
  set +m
}

send() { # signal; to the processes that still run
  local i
  for i in "${!pids[@]}"; do
    [[ -n ${ended[i]-} ]] || kill "-$1" -- "-${pids[i]}"
  done
}

reap() { # process; takes note of how it ended
  local status
  wait "${pids[$1]}"
  status=$?
  ended[$1]=$status
  # Its children, if it left any.
  kill -KILL -- "-${pids[$1]}"
  ((status)) || return 0
  : "${deadline:=$((SECONDS + grace))}"
  if ((status == 75)); then
    stopped=1
  elif ((told && (status == 143 || status == 137))); then
    # By us, before it listened or after its time.
    ((asked)) && stopped=1
  else
    if ((status > 128)); then
      say "process $1 was killed by signal $((status - 128))"
    elif ((status != 2)); then
      say "process $1 failed with exit status $status"
    fi
    : "${failure:=$status}"
  fi
}

supervise() { # command...
  if ((processes == 1)); then
    use_gpus_of 0
    exec "$@" 3>&-
  fi
  local i port running=$processes patience=$((grace < 5 ? grace : 5))
  port=$(python -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])') || exit
  export JAXNLT_COORDINATOR=127.0.0.1:$port JAXNLT_NUM_PROCESSES=$processes
  # JAX itself reads this; nobody outside this machine shall connect.
  export JAX_COORDINATOR_BIND_ADDRESS=127.0.0.1:$port

  folder=$(mktemp -d) || exit
  pids=() ended=() readers=()
  asked=0 interrupts=0 told=0 stopped=0 deadline='' failure=''
  trap 'send KILL; rm -rf "$folder"' EXIT
  trap 'asked=1' TERM HUP
  trap 'asked=1; interrupts=$((interrupts + 1))' INT
  for ((i = 0; i < processes; i++)); do start "$i" "$@"; done

  exec 2>/dev/null
  while ((running)); do
    if ((asked && !told)) || [[ -n $deadline && $SECONDS -ge $deadline ]]; then
      # Ctrl-C, too, as SIGTERM: on that a run saves.
      ((told)) || send TERM
      told=1
    fi
    if ((interrupts > 1)) ||
      [[ -n $deadline && $SECONDS -ge $((deadline + patience)) ]]; then
      send KILL
    fi
    sleep 0.2
    for i in "${!pids[@]}"; do
      [[ -z ${ended[i]-} ]] || continue
      kill -0 "${pids[i]}" && continue
      reap "$i"
      running=$((running - 1))
    done
  done
  wait "${readers[@]}"
  ((!stopped)) || : "${failure:=75}"
  exit "${failure:-0}"
}

supervise python -m jaxnlt.main "$@"
