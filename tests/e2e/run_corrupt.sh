#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The ways in which a pager corrupts memory silently, each tried in a limit that makes pages leave:
# races of discarding, unmapping and moving with eviction, every kind of child, a launcher or a
# host that is killed, threads that come and go, system calls on memory that is out, data that
# does not compress. e2e-corrupt tells a page that is wrong.
#
#   run_corrupt.sh [MODE...]     TMEM_ROUNDS=n: every mode n times its rounds; default half, long 10
. "$(dirname "$0")/lib.sh"
need_run
CORRUPT=$BUILD/tests/e2e/e2e-corrupt
[ -x "$CORRUPT" ] || CORRUPT=$BUILD/e2e-corrupt
TIMES=${TMEM_ROUNDS:-$([ -n "$LONG" ] && echo 10 || echo 1)}
SECONDS_MAX=$(((20 + 4 * TIMES) * ${TMEM_SLOW:+20 *} 1))
PART=${TMEM_SLOW:+10} # of its rounds
[ -n "$PART$LONG${TMEM_ROUNDS:-}" ] || PART=2
LIMIT=32M
seed=${TMEM_SEED:-$(date +%s)}
note "seed $seed"
WANTED=" $* "
# Whether a part of this test is wanted.
want() { [ "$WANTED" = "  " ] || [[ $WANTED == *" $1 "* ]]; }

# go NAME MODE [ROUNDS [OPTION...]]: under tmem run; CODE, NAME.out, NAME.err, NAME.json.
go() {
	local name=$1 mode=$2 rounds=${3:-} t=$EPOCHREALTIME
	shift 2
	[ $# -eq 0 ] || shift
	rounds=${rounds:-$(($("$CORRUPT" rounds "$mode") / ${PART:-1}))}
	rounds=$((rounds > 0 ? rounds : 1))
	busy_from
	timeout -k 2 "$SECONDS_MAX" "$TMEM" run --limit $LIMIT --report "$T/$name.json" "$@" -- \
		"$CORRUPT" "$mode" $((rounds * TIMES)) "$seed" >"$T/$name.out" 2>"$T/$name.err" </dev/null
	CODE=$?
	busy_to >/dev/null
	note "$name: $(calc "$EPOCHREALTIME - $t" %.2f) s, evicted $(value "$name" evicted_pages), over the" \
		"limit $(value "$name" over_limit_s) s, peak $(mib "$(value "$name" peak_total_bytes)")"
}
value() { number_of "$T/$1.json" "$2"; }
why() { printf 'exit code %s: %s' "$CODE" "$(grep -m 1 -a WRONG "$T/$1.err" || tail -n 1 "$T/$1.err")"; }
# right NAME [CODE]: it came to its end, with pages that had left and nothing wrong.
right() {
	local name=$1 want=${2:-0}
	if [ "$CODE" != "$want" ] || grep -qa WRONG "$T/$name.err" "$T/$name.out"; then
		not_ok "$name" "$(why "$name")"
	elif ! grep -qx 'all pages right' "$T/$name.out"; then
		not_ok "$name" "no last line"
	elif ! evicted "$T/$name.json"; then
		not_ok "$name" "nothing was evicted: the test is too small"
	else
		ok "$name"
	fi
}
# within NAME SECONDS: over the limit for no longer than that.
within() { short "$1" "$(value "$1" over_limit_s)" "$2"; }
# left: processes of e2e-corrupt with our seed that still live.
left() { pgrep -f "e2e-corrupt [a-z-]* [0-9]* $seed\$" | tr '\n' ' '; }
# gone NAME: none does, after at most five seconds.
gone() {
	local i
	for ((i = 0; i < 50; i++)); do
		[ -n "$(left)" ] || break
		sleep 0.1
	done
	check "$1.gone" "still there: $(left)" test -z "$(left)"
	# shellcheck disable=SC2046 # numbers
	[ -z "$(left)" ] || kill -KILL $(left)
}

# ---- one process, and its children: to the end ---------------------------------------------------
for mode in discard-race discard-cold discard-ahead free-race map-race map-fixed move-race move-grow protect protect-fresh brk shared \
	small-maps churn huge-space own-uffd fork-raw fork-raw-fork fork-short fork-mixed fork-without spawn \
	close-all storm own-stacks signals barriers splice calls lock lock-all direct guard-refused fork-moving; do
	want $mode || continue
	go $mode $mode
	right $mode
done
if want sleepers; then
	for mode in sleepers sleepers-c11; do
		GLIBC_TUNABLES=glibc.pthread.rseq=0 go $mode $mode
		right $mode
	done
fi
# Memory that a child finds empty, but that had left before.
if want fork-wipe; then
	go fork-wipe fork-wipe
	right fork-wipe
fi
# Or that a child's child does.
if want row-wipe-again; then
	go row-wipe-again row-wipe-again 15
	right row-wipe-again
fi
# In a PID namespace of its own, where its threads have other numbers than the host sees.
if want namespace; then
	if unshare --pid --fork --mount-proc true 2>/dev/null; then
		for mode in row-wipe sleepers; do
			(
				printf '#!/bin/sh\nexec unshare --pid --fork --mount-proc %q "$@"\n' "$CORRUPT" >"$T/inside"
				chmod 755 "$T/inside"
				rounds=$([ $mode = row-wipe ] && echo 30 || "$CORRUPT" rounds $mode)
				CORRUPT=$T/inside GLIBC_TUNABLES=glibc.pthread.rseq=0 go namespace-$mode $mode "$rounds"
				right namespace-$mode
				exit $FAILURES
			) || FAILURES=$((FAILURES + 1))
		done
	else
		skip namespace "no PID namespace may be made here"
	fi
fi
# Freed before anybody looked, by libc and past it.
for n in 1 2; do
	want free-before || continue
	go free-before.$n free-before $n
	right free-before.$n
done
if want row-wipe-raw; then
	go row-wipe-raw row-wipe-raw 15
	right row-wipe-raw
fi
if want free-reuse; then
	go free-reuse free-reuse
	right free-reuse
	within free-reuse 1
fi

# The process that a shell started in the background, and the host among its children.
host_of() { pgrep -P "$1" | while read -r p; do [ "$(cat "/proc/$p/comm" 2>/dev/null)" = tmem-host ] && echo "$p"; done; }
# How often a host's pagers have gone to sleep.
sleeps() {
	awk '/^Name:/ { pager = $2 == "tmem-pager" } /^voluntary/ && pager { n += $2 } END { print n + 0 }' \
		"/proc/$1"/task/*/status
}
# Memory that goes while a system call waits for it: afterwards nobody does, and the pager, which has
# nothing to do, sleeps for milliseconds. With a fault that it still holds it would for half of one.
if want unmap-wanted; then
	rounds=$(("$("$CORRUPT" rounds unmap-wanted)" / ${PART:-1} * TIMES))
	"$TMEM" run --limit $LIMIT --report "$T/unmap-wanted.json" -- "$CORRUPT" unmap-wanted $rounds "$seed" \
		>"$T/unmap-wanted.out" 2>"$T/unmap-wanted.err" </dev/null &
	PIDS=($!)
	host=""
	for ((i = 0; i < SECONDS_MAX * 20; i++)); do
		[ -n "$host" ] || host=$(host_of "${PIDS[0]}")
		! grep -qsx quiet "$T/unmap-wanted.out" || break
		kill -0 "${PIDS[0]}" 2>/dev/null || break
		sleep 0.05
	done
	sleep 0.5
	n=$(sleeps "$host")
	sleep 1
	n=$(($(sleeps "$host") - n))
	wait "${PIDS[0]}"
	CODE=$?
	PIDS=()
	note "unmap-wanted: the pager slept $n times in a second"
	right unmap-wanted
	if nm -D "$TMEM" 2>/dev/null | grep -q '__[at]san_init'; then
		skip unmap-wanted.idle "a sanitizer's own memory keeps the pager awake"
	else
		check unmap-wanted.idle "the pager slept $n times in a second" test "$n" -gt 0 -a "$n" -lt 1000
	fi
fi

# Descriptors for sixty children at once, when a process is allowed 128.
if want fork-many; then
	(ulimit -Sn 128 && go fork-many fork-many && right fork-many && exit $FAILURES) || FAILURES=$((FAILURES + 1))
fi

# ---- other programs, other processes -------------------------------------------------------------------
if want exec; then
	go exec exec 3
	right exec
	# Each link is a shell, env, a shell and the program: with an agent in each.
	n=$(value exec processes)
	check exec.agents "$n processes had an agent" test "${n:-0}" -ge 9
fi
if want daemon; then
	go daemon daemon
	right daemon 7
fi
# What goes on in the background when the first process is over, through the gaps of exec.
if want background; then
	for ((i = 0; i < 15; i++)); do
		"$TMEM" run --limit $LIMIT -- sh -c "(sleep 0.05; exec sh -c 'exec sh -c \"exec sh -c \\\"echo done\\\"\"') &
			exit 3" >"$T/background.out" 2>"$T/background.err" </dev/null
		CODE=$?
		[ "$CODE.$(cat "$T/background.out" "$T/background.err")" = 3.done ] || break
	done
	check background "round $i, exit code $CODE: $(cat "$T/background.out" "$T/background.err")" test $i = 15
fi
if want clone-vm; then
	go clone-vm clone-vm
	gone clone-vm # ended by a signal, or right to the end: it must not see wrong pages
	right clone-vm
fi

# ---- data that does not compress ---------------------------------------------------------------------------
if want random; then
	go random random
	right random
	check random.told "not told: over the limit for $(value random over_limit_s) s" \
		test "$(calc "($(value random over_limit_s) > 0)")" = 1
fi
if want overflow; then
	go overflow random 2 --overflow "$T/overflow"
	right overflow
	within overflow 3
fi
if want full; then
	if mkdir "$T/full" && mount -t tmpfs -o size=8m none "$T/full" 2>/dev/null; then
		go full random "" --overflow "$T/full/overflow"
		umount "$T/full"
		right full
	else
		skip full "no tmpfs can be mounted"
	fi
fi

# ---- killed -------------------------------------------------------------------------------------------------
# ready NAME: waits until the program says so; not at all is a failure.
ready() {
	local i
	for ((i = 0; i < 300; i++)); do
		grep -qs ready "$T/$1.out" && return
		sleep 0.05
	done
	not_ok "$1.ready" "the program has not begun: $(tail -n 1 "$T/$1.err")"
}
# killed NAME ROUNDS host|supervisor|both: rounds 1: one process, 2: a child, 3: one that libc does
# not know, too. It ends at once; nothing of it lives on; no page was wrong.
killed() {
	local name=$1 rounds=$2 who=$3 supervisor host i targets
	"$TMEM" run --limit $LIMIT -- "$CORRUPT" hold "$rounds" "$seed" >"$T/$name.out" 2>"$T/$name.err" </dev/null &
	supervisor=$!
	PIDS=("$supervisor")
	ready "$name"
	sleep 0.2
	host=$(host_of $supervisor)
	case $who in
	host) targets=$host ;;
	supervisor) targets=$supervisor ;;
	both) targets="$host $supervisor" ;;
	esac
	# shellcheck disable=SC2086 # numbers
	kill -KILL $targets
	wait "$supervisor" 2>/dev/null
	CODE=$?
	PIDS=()
	gone "$name"
	check "$name.code" "exit code $CODE" test $CODE -ge 125
	check "$name.pages" "$(why "$name")" test -z "$(grep -a -e WRONG -e right -e 'nobody killed' "$T/$name.err" "$T/$name.out")"
	for ((i = 0; i < 50; i++)); do
		[[ $(ps -o stat= -p "$host" 2>/dev/null) == [!Z]* ]] || break
		sleep 0.1
	done
	check "$name.host" "the host lives, or was not found" test -n "$host" -a $i -lt 50
}
if want killed; then
	for ((k = 0; k < TIMES; k++)); do
		for who in host supervisor both; do
			killed killed-$who 1 $who
			killed killed-$who-child 2 $who
			killed killed-$who-raw 3 $who # with both gone, the keeper
		done
	done
fi

# ---- a host that cannot have one more thread ----------------------------------------------------------------
# A child that nobody would serve is not known by number: the whole program ends, and not its parent alone.
if want fork-refused; then
	"$TMEM" run --limit $LIMIT -- "$CORRUPT" fork-refused 60 "$seed" \
		>"$T/fork-refused.out" 2>"$T/fork-refused.err" </dev/null &
	PIDS=($!)
	ready fork-refused
	host=$(host_of "${PIDS[0]}")
	# Neither a stack nor a large block is to be had any more; what it has it may use.
	prlimit --pid "$host" --as="$(awk '/^VmSize:/ { print $2 * 1024 }' "/proc/$host/status")"
	for ((i = 0; i < 300; i++)); do
		kill -0 "${PIDS[0]}" 2>/dev/null || break
		sleep 0.05
	done
	check fork-refused.ends "it waits for ever" test $i -lt 300
	[ $i -lt 300 ] || kill -KILL "${PIDS[0]}"
	wait "${PIDS[0]}" 2>/dev/null
	CODE=$?
	PIDS=()
	gone fork-refused
	note "fork-refused: $(tail -n 2 "$T/fork-refused.err" | tr '\n' '|')"
	check fork-refused "$(why fork-refused)" test $CODE = 125
	check fork-refused.pages "$(why fork-refused)" \
		test -z "$(grep -a -e WRONG -e 'nobody ended' "$T/fork-refused.err" "$T/fork-refused.out")"
fi

# ---- stopped ---------------------------------------------------------------------------------------------------
if want stopped; then
	"$TMEM" run --limit $LIMIT --report "$T/stopped.json" -- "$CORRUPT" walk 3 "$seed" \
		>"$T/stopped.out" 2>"$T/stopped.err" </dev/null &
	PIDS=($!)
	ready stopped
	sleep 0.2
	host=$(host_of "${PIDS[0]}")
	program=$(pgrep -f "e2e-corrupt walk 3 $seed\$" | grep -vx "${PIDS[0]}" | grep -vx "$host" | head -n 1)
	check stopped.found "program '$program', host '$host'" test -n "$program" -a -n "$host"
	for ((i = 0; i < 8; i++)); do
		for p in $program $host "$program $host"; do
			# shellcheck disable=SC2086 # numbers
			kill -STOP $p
			sleep 0.04
			# shellcheck disable=SC2086
			kill -CONT $p
			sleep 0.03
		done
	done
	wait "${PIDS[0]}"
	CODE=$?
	PIDS=()
	right stopped
fi
# ---- without CAP_SYS_PTRACE: no fork is told -------------------------------------------------------
if want careful; then
	if careful; then
		for mode in fork-short fork-mixed fork-without fork-moving spawn exec storm move-race; do
			go careful-$mode $mode
			right careful-$mode
		done
		# A fork behind libc's back: the child dies at the first page, of SIGSEGV; it reads no zeros.
		go careful-raw fork-raw
		check careful-raw "$(why careful-raw)" \
			grep -Eqx 'e2e-corrupt: raw fork: the child ended with status 8?b' "$T/careful-raw.err"
		check careful-raw.pages "$(why careful-raw)" test -z "$(grep -a WRONG "$T/careful-raw.err")"
	else
		skip careful "userfaultfd is not permitted without CAP_SYS_PTRACE"
	fi
fi
finish
