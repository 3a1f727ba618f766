#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tmem run: exit codes, and every way of being called wrongly: one clear line, nothing started.
. "$(dirname "$0")/lib.sh"
need_run

# code NAME EXPECTED COMMAND...: the exit code.
code() {
	local name=$1 want=$2 got
	shift 2
	timeout 20 "$@" >"$T/out" 2>"$T/err" </dev/null
	got=$?
	check "$name" "exit code $got, not $want: $(head -n 1 "$T/err")" test "$got" = "$want"
}
# refused NAME CODES COMMAND...: one of the codes, one or two lines on stderr that start with
# "tmem", and the program (which would make a file) was not started.
refused() {
	local name=$1 want=$2 got lines
	shift 2
	rm -f "$T/started"
	timeout 20 "$@" >"$T/out" 2>"$T/err" </dev/null
	got=$?
	lines=$(wc -l <"$T/err")
	if [[ " $want " != *" $got "* ]]; then
		not_ok "$name" "exit code $got, not one of: $want; $(head -n 1 "$T/err")"
	elif [ "$lines" -lt 1 ] || [ "$lines" -gt 2 ] || ! head -n 1 "$T/err" | grep -q '^tmem'; then
		not_ok "$name" "not one clear line: $(tr '\n' '|' <"$T/err" | cut -c-160)"
	elif [ -e "$T/started" ]; then
		not_ok "$name" "the program was started"
	else
		note "$name: $(head -n 1 "$T/err")"
		ok "$name"
	fi
}

touch_it=(/bin/touch "$T/started")
code exit_0 0 "$TMEM" run -- /bin/true
code exit_1 1 "$TMEM" run -- /bin/false
code exit_7 7 "$TMEM" run -- /bin/sh -c 'exit 7'
code exit_255 255 "$TMEM" run -- /bin/sh -c 'exit 255'
code exit_signal 143 "$TMEM" run -- /bin/sh -c 'kill -TERM $$'
code exit_abort 134 "$TMEM" run -- /bin/sh -c 'ulimit -c 0; kill -ABRT $$'
# What the kernel writes of a program that is ended lacks pages: that is said.
check exit_abort.core "there is no core to speak of" test -z "$(grep zeros "$T/err")"
mkdir "$T/core"
code core 134 /bin/sh -c 'ulimit -c unlimited && cd "$1" && exec "$2" run -- /bin/sh -c "kill -ABRT \$\$"' \
	sh "$T/core" "$TMEM"
if [ -n "$(ls "$T/core")" ]; then
	check core.told "$(cat "$T/err")" grep -qx 'tmem run: the core of /bin/sh has zeros where pages were out' "$T/err"
else
	skip core.told "no core is written here"
fi
code exit_kill 137 "$TMEM" run -- /bin/sh -c 'kill -KILL $$'
code by_path 0 "$TMEM" run -- true
code with_limit 0 "$TMEM" run --limit 64M -- /bin/true

"$TMEM" run -- /bin/sh -c 'cat; echo err >&2; echo "$1 $#"' sh 'two words' b <<<"input" >"$T/out" 2>"$T/err"
check streams "standard streams or arguments are not the program's" \
	test "$(cat "$T/out") / $(cat "$T/err")" = "input
two words 2 / err"
# The parent's signal reaches the program, and its exit is ours.
"$TMEM" run -- /bin/sh -c 'trap "exit 9" TERM; echo up; while :; do sleep 0.05; done' >"$T/out" 2>/dev/null &
PIDS=($!)
for _ in {1..100}; do
	grep -q up "$T/out" && break
	sleep 0.05
done
kill -TERM "${PIDS[0]}"
(
	sleep 10
	kill -KILL "${PIDS[0]}"
) 2>/dev/null &
watchdog=$!
wait "${PIDS[0]}"
got=$?
kill "$watchdog" 2>/dev/null
PIDS=()
check signal_forwarded "exit code $got, not 9" test "$got" = 9

code not_found 127 "$TMEM" run -- /nonexistent/program
check not_found_line "no line that names it" grep -q nonexistent "$T/err"
: >"$T/plain"
code not_executable 126 "$TMEM" run -- "$T/plain"
refused no_program "2" "$TMEM" run
refused unknown_option "2" "$TMEM" run --limitt 1G -- "${touch_it[@]}"
refused limit_missing "2" "$TMEM" run --limit
refused limit_word "2" "$TMEM" run --limit lots -- "${touch_it[@]}"
refused limit_negative "2" "$TMEM" run --limit -5M -- "${touch_it[@]}"
refused limit_zero "2" "$TMEM" run --limit 0 -- "${touch_it[@]}"
refused limit_small "2" "$TMEM" run --limit 64K -- "${touch_it[@]}"
refused limit_huge "2" "$TMEM" run --limit 99999999999999999999G -- "${touch_it[@]}"
refused codec_unknown "2" "$TMEM" run --codec lz5 -- "${touch_it[@]}"
refused codec_level "2" "$TMEM" run --codec zstd:99 -- "${touch_it[@]}"
refused max_small "2" "$TMEM" run --limit auto --max 1M -- "${touch_it[@]}"
refused codec_option "2" "$TMEM" run --codec foo -- "${touch_it[@]}"
check codec_option.named "$(cat "$T/err")" grep -q -- '--codec: ' "$T/err"
refused overflow_rate_alone "2" "$TMEM" run --overflow-rate 1M -- "${touch_it[@]}"
refused overflow_encrypt_alone "2" "$TMEM" run --overflow-encrypt -- "${touch_it[@]}"
refused overflow_rate_zero "2" "$TMEM" run --overflow "$T/over" --overflow-rate 0 -- "${touch_it[@]}"
check overflow_rate_zero.range "$(cat "$T/err")" grep -q '1 to 8388607T' "$T/err"
refused no_name "127" "$TMEM" run ''
check no_name.said "$(cat "$T/err")" grep -qF "'': not found" "$T/err"
# Of a program that does not start no report is left, and one that was there stays.
refused report_of_nothing "127" "$TMEM" run -r "$T/new.json" -- /nonexistent/program
check report_of_nothing.gone "an empty file stays" test ! -e "$T/new.json"
refused report_of_overflow "126" "$TMEM" run -r "$T/new.json" -o /nonexistent/x -- "${touch_it[@]}"
check report_of_overflow.gone "an empty file stays" test ! -e "$T/new.json"
echo "old" >"$T/old.json"
refused report_old "127" "$TMEM" run -r "$T/old.json" -- /nonexistent/program
check report_old.kept "it is gone" grep -qx old "$T/old.json"
# A report or a trace that cannot be written whole: the reason, no fragment, and 125 unless the program failed
# by itself.
if [ -w /dev/full ]; then
	code report_full 125 "$TMEM" run -r /dev/full -- /bin/true
	check report_full.said "$(cat "$T/err")" grep -q 'cannot write the report /dev/full: No space left on device' "$T/err"
	check report_full.device "it is gone" test -c /dev/full
	code report_full_failed 7 "$TMEM" run -r /dev/full -- /bin/sh -c 'exit 7'
fi
if mkdir "$T/small" && mount -t tmpfs -o size=4k none "$T/small" 2>/dev/null; then
	code report_fragment 125 "$TMEM" run -r "$T/small/r.json" -- /bin/sleep 1
	check report_fragment.said "$(cat "$T/err")" grep -q 'r.json: No space left on device' "$T/err"
	check report_fragment.gone "a part of it stays" test ! -e "$T/small/r.json"
	pages=("$BUILD/tests/e2e/e2e-pages" touch 80 2)
	code trace_lacks 125 "$TMEM" run -l 40M -t "$T/small/t" -- "${pages[@]}"
	check trace_lacks.said "$(cat "$T/err")" grep -q 'lacks [0-9]* operations: No space' "$T/err"
	rm -f "$T/small/t"
	code trace_memory_lacks 125 "$TMEM" trace -m -l 40M -o "$T/small/t" -- "${pages[@]}"
	umount "$T/small"
else
	skip full_disk "no tmpfs can be mounted here"
fi
refused report_unwritable "1 2 126" "$TMEM" run --report /nonexistent/x.json -- "${touch_it[@]}"
refused overflow_unwritable "1 2 126" "$TMEM" run --overflow /nonexistent/x -- "${touch_it[@]}"
echo "not ours" >"$T/diary"
refused overflow_foreign "1 2 126" "$TMEM" run --overflow "$T/diary" -- "${touch_it[@]}"
grep -qx "not ours" "$T/diary" && ok overflow_foreign_kept || not_ok overflow_foreign_kept "it was changed"

# What cannot carry the agent is refused rather than run unmanaged.
cat >"$T/touch.c" <<'C'
#include <fcntl.h>
int main(int argc, char **argv) { return argc < 2 || open(argv[1], O_CREAT | O_WRONLY, 0600) < 0; }
C
if gcc -static -o "$T/static" "$T/touch.c" 2>/dev/null; then
	refused static_program "126" "$TMEM" run -- "$T/static" "$T/started"
else
	skip static_program "no static libc here"
fi
if [ "$(id -u)" = 0 ] && gcc -o "$T/setuid" "$T/touch.c" 2>/dev/null &&
	chown 65534 "$T/setuid" && chmod 4755 "$T/setuid"; then
	chmod 755 "$T"
	refused setuid_program "126" "$TMEM" run -- "$T/setuid" "$T/started"
else
	skip setuid_program "needs root"
fi

# The report: all fields, as numbers.
"$TMEM" run --limit 64M --report "$T/report.json" -- /bin/sh -c 'exit 3' 2>/dev/null
if python3 - "$T/report.json" <<'PY' 2>"$T/err"; then
import json, sys
r = json.load(open(sys.argv[1]))
want = """wall_s limit_bytes peak_total_bytes peak_resident_bytes store_bytes stored_pages
compressed_bytes same_filled_pages ratio evicted_pages faults fault_us_p50 fault_us_p99
over_limit_s""".split()
missing = [k for k in want if not isinstance(r.get(k), (int, float))]
assert not missing, "missing or no number: %s" % missing
assert r["limit_bytes"] == 64 << 20, r["limit_bytes"]
PY
	ok report_fields
else
	not_ok report_fields "$(tail -n 1 "$T/err")"
fi
# However it was started, and whoever sends it what. Each sleep is what a signal would cut short, or
# time for one that should not come.
code=0
timeout -k 1 20 python3 -c 'import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])' "$TMEM" run -- /bin/sh -c 'exit 7' 2>/dev/null || code=$?
check sigchld_ignored "exit code $code" test $code = 7
timeout -k 1 20 "$TMEM" run -- /bin/sh -c "kill -PIPE \$PPID; sleep 0.3; echo ok >'$T/pipe'" 2>/dev/null
check sigpipe "it was ended" test -s "$T/pipe"
code=0
timeout -k 1 20 python3 -c 'import os, signal, sys
signal.alarm(1)
os.execv(sys.argv[1], sys.argv[1:])' "$TMEM" run -- /bin/sleep 15 2>/dev/null || code=$?
check alarm "exit code $code" test $code = 142
timeout -k 1 20 setsid -w "$TMEM" run -- /bin/bash -c 'n=0; trap "n=\$((n + 1))" USR1; kill -USR1 0; sleep 0.3; sleep 0.3; echo $n' \
	>"$T/group" 2>/dev/null
check kills_its_group "it came $(cat "$T/group") times" test "$(cat "$T/group")" = 1
# The host tells of a child that it cannot manage, to whatever is in the place of stderr; it looks
# for such every half a second at best, so the child lives for four.
printf '#include <unistd.h>\nint main(void) { return (int)sleep(4); }\n' >"$T/sleep.c"
if gcc -static -o "$T/sleep" "$T/sleep.c" 2>/dev/null; then
	timeout -k 1 20 "$TMEM" run -- /bin/sh -c "'$T/sleep'; echo ok >'$T/closed'" <&- >&- 2>&-
	check closed_descriptors "it was ended" test -s "$T/closed"
else
	skip closed_descriptors "no gcc, or no static libc here"
fi
# Who has dropped root may not make a userfaultfd, and goes on without us.
if [ "$(id -u)" = 0 ] && [ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 0 ]; then
	mkdir -m 755 "$T/bin" && cp "$BUILD/tmem" "$BUILD/libtmem-agent.so" "$T/bin" && chmod 755 "$T" "$T"/bin/*
	code=0
	LD_LIBRARY_PATH=$BUILD "$T/bin/tmem" run -- /bin/sh -c 'setpriv --reuid=65534 --regid=65534 --clear-groups id -u' \
		>"$T/dropped" 2>"$T/err" || code=$?
	check dropped_root "exit code $code: $(tail -n 1 "$T/err")" test "$code $(cat "$T/dropped")" = "0 65534"
else
	skip dropped_root "not root, or everybody may make a userfaultfd here"
fi
# Who has another thread that shares its current folder may not enter a mount namespace.
if unshare --mount true 2>/dev/null && command -v nsenter >/dev/null; then
	"$TMEM" run -- nsenter --mount="/proc/$$/ns/mnt" true 2>"$T/err"
	code=$?
	check enters "exit code $code, $(cat "$T/err")" test $code = 0
	mkdir "$T/left"
	mount -t tmpfs none "$T/left"
	# shellcheck disable=SC2016 # by the shell inside
	"$TMEM" run -- /bin/sh -c 'cd "$1" && exec /bin/sh -c "cd / && umount \$1" sh "$1"' sh "$T/left" 2>"$T/err"
	check leaves_folder "$(cat "$T/err")" bash -c "! mountpoint -q '$T/left'"
	umount -q "$T/left"
else
	skip enters "no mount namespace may be made here"
fi

# Processes are looked at by their numbers, which that /proc gives to others.
if unshare --pid --fork --mount-proc true 2>/dev/null; then
	check namespace "not yes" test "$(unshare --pid --fork --mount-proc "$TMEM" run -- echo yes 2>&1)" = yes
	unshare --pid --fork "$TMEM" run -- true 2>"$T/err"
	code=$?
	check others_proc "exit code $code, $(cat "$T/err")" test $code = 126 -a "$(grep -c 'another PID namespace' "$T/err")" = 1
else
	skip namespace "no PID namespace may be made here"
fi

# Nothing of ours stays behind in the program's environment or among its descriptors.
/bin/sh -c 'ls /proc/self/fd | sort -n' >"$T/fds.bare"
"$TMEM" run -- /bin/sh -c 'ls /proc/self/fd | sort -n' >"$T/fds" 2>/dev/null
check descriptors "$(tr '\n' ' ' <"$T/fds"), bare $(tr '\n' ' ' <"$T/fds.bare")" cmp -s "$T/fds" "$T/fds.bare"
finish
