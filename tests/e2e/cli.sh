#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The command line: wrong input of every kind gives one clear line and the right exit code; what
# estimate and bench print can be read; nothing is left behind. (tmem run: run_errors.sh.)
. "$(dirname "$0")/lib.sh"

# wrong NAME CODE WORDS ARGS...: the exit code, nothing on stdout, one line on stderr that starts
# with "tmem" and holds WORDS; with exit code 2 it points to --help.
wrong() {
	local name=$1 want=$2 words=$3 got
	shift 3
	timeout 30 "$TMEM" "$@" >"$T/out" 2>"$T/err" </dev/null
	got=$?
	if [ "$got" != "$want" ]; then
		not_ok "$name" "exit code $got, not $want: $(head -n 1 "$T/err")"
	elif [ -s "$T/out" ]; then
		not_ok "$name" "something on stdout: $(head -n 1 "$T/out")"
	elif [ "$(wc -l <"$T/err")" != 1 ] || ! grep -q '^tmem' "$T/err"; then
		not_ok "$name" "not one clear line: $(tr '\n' '|' <"$T/err" | cut -c-160)"
	elif ! grep -qF -- "$words" "$T/err"; then
		not_ok "$name" "'$words' is not in: $(cat "$T/err")"
	elif [ "$want" = 2 ] && ! grep -q -- "--help" "$T/err"; then
		not_ok "$name" "does not point to --help: $(cat "$T/err")"
	else
		ok "$name"
	fi
}
# right NAME WORDS ARGS...: exit code 0, WORDS on stdout, nothing on stderr.
right() {
	local name=$1 words=$2 got
	shift 2
	timeout 60 "$TMEM" "$@" >"$T/out" 2>"$T/err" </dev/null
	got=$?
	if [ "$got" != 0 ]; then
		not_ok "$name" "exit code $got: $(head -n 1 "$T/err")"
	elif [ -s "$T/err" ]; then
		not_ok "$name" "on stderr: $(head -n 1 "$T/err")"
	elif ! grep -qF -- "$words" "$T/out"; then
		not_ok "$name" "'$words' is not on stdout"
	else
		ok "$name"
	fi
}
# fields NAME EXPRESSION: the JSON in $T/out fulfils a Python expression over d.
fields() {
	if python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
sys.exit(not eval("(" + sys.argv[2] + ")"))' "$T/out" "$2" 2>"$T/err"; then
		ok "$1"
	else
		not_ok "$1" "not so: $2 $(tail -n 1 "$T/err")"
	fi
}
need_program python3

# ---- help, version, dispatch
right help "estimate" --help
right help_short "usage: tmem" -h
right version "tmem 0" --version
right estimate_help "usage: tmem estimate" estimate --help
right bench_help "engine" bench --help
for b in engine alloc index peers run; do
	right "bench_${b}_help" "usage: tmem bench $b" bench $b --help
done
for c in top ctl; do # later versions have them: not listed before
	"$TMEM" --help | grep -qw "$c" && not_ok "help_lists_$c" "but there is no such command"
done
wrong bench_mount_nothing 2 "which folder" bench mount
wrong bench_mount_missing 1 "nothing to read" bench mount /no/such
wrong mount_nothing 2 "which folder" mount
wrong mount_size 2 "at least 32M" mount --size 1M / /mnt
wrong mount_both 2 "exclude each other" mount --ttl 1 --immutable / /mnt
wrong mount_codec 2 "lz5" mount --codec lz5 / /mnt
wrong mount_codec_option 2 "--codec: " mount --codec lz5 / /mnt
wrong mount_readahead 2 "--readahead takes" mount --readahead x / /mnt
wrong mount_empty 2 "SRC is empty" mount "" /mnt
wrong mount_empty_point 2 "DIR is empty" mount / ""
wrong mount_policy 2 "lru or s3fifo" mount --policy mru / /mnt
wrong mount_source 1 "/no/such" mount /no/such "$T"
wrong mount_point 1 "/no/such" mount "$T" /no/such
wrong umount_nothing 2 "which folder" umount
wrong umount_other 1 "not a mount of tmem" umount "$T"
wrong stat_nothing 2 "which file" stat
wrong stat_other 1 "not in a mount of tmem" stat "$T"
wrong invalidate_nothing 2 "which file" invalidate
wrong invalidate_missing 1 "No such file" invalidate /no/such
wrong no_command 2 "which command" 
wrong trace_nothing 2 "one of them" trace
wrong trace_info_missing 1 "cannot be opened" trace --info /no/such/file
wrong trace_json 2 "--json goes with --info" trace -J -o "$T/none" -- true
wrong trace_codec 2 "--codec: unknown" trace -m -l 64M -c foo -o "$T/none" -- true
# A text that is refused, before anything is written over.
for what in foo:1:1 loop:0:10 zipf:10:-5 zipf:10:10:10 zipf "zipf: 10:10"; do
	echo keepme >"$T/keep"
	wrong "trace_make_'$what'" 2 "--make" trace --make "$what" -o "$T/keep"
	check "trace_make_'$what'_keeps" "the file is gone" grep -qx keepme "$T/keep"
done
wrong trace_make_unwritable 1 "cannot write" trace --make loop:10:10 -o /no/such/file
"$TMEM" trace --make loop:10:1000 -o "$T/made.trace"
right trace_made "1000" trace --info "$T/made.trace"
wrong replay_nothing 2 "which trace" replay
wrong replay_not_a_trace 1 "is not a trace" replay /etc/passwd
wrong replay_over_input 2 "is to be read" replay "$T/made.trace" --svg "$T/made.trace"
if [ -w /dev/full ]; then
	"$TMEM" replay "$T/made.trace" -p lru --svg /dev/full >"$T/out" 2>"$T/err"
	check replay_svg_full "$(cat "$T/err")" grep -qx 'tmem replay: cannot write /dev/full: No space left on device' "$T/err"
	"$TMEM" trace --info "$T/made.trace" -J >/dev/full 2>"$T/err"
	check json_full "$(cat "$T/err")" grep -q '^tmem trace: cannot write to stdout: No space' "$T/err"
fi
wrong replay_policy 2 "known: lru, s3fifo, opt, model:NAME" replay --policy mru /etc/passwd
wrong replay_model 2 "known: fifo, lru, s3fifo, opt" replay --policy model:mru /etc/passwd
wrong replay_size 1 "is not a trace" replay --size 64M /etc/passwd
wrong bench_store_pages 2 "from 1000" bench store --pages 5
wrong bench_store_memory 1 "the machine has" bench store --data 1000T
wrong unknown_command 2 "frobnicate" frobnicate
wrong empty_command 2 "''" ""
wrong unknown_option 2 "--frobnicate" --frobnicate
wrong bench_nothing 2 "which bench" bench
wrong bench_unknown 2 "frobnicate" bench frobnicate
wrong bench_option 2 "--frobnicate" bench --frobnicate

# ---- options
wrong option_unknown 2 "--frob" estimate --frob 1
wrong option_letter 2 "-Z" estimate -Z 1
wrong option_value_missing 2 "--max needs SIZE" estimate --max
wrong option_value_empty 2 "--save" estimate --save= 1
wrong option_flag_value 2 "takes no value" estimate --json=yes 1
for size in 0 -1 1X 1.5 M "" 2Gi 1e9 0x10 " 5" 5,5G; do
	wrong "size_'$size'" 2 "--max" estimate --max "$size" "$0"
done
wrong size_overflow 2 "out of range" estimate --max 99999999999999999999 "$0"
wrong size_overflow_unit 2 "out of range" estimate --max 99999999999T "$0"
for percent in 0 101 -5 x 50%% nan inf 0x10; do
	wrong "percent_'$percent'" 2 "--sample" estimate --sample "$percent" "$0"
done
for n in 0 -1 1.5 x 99999999999 "" "2 "; do
	wrong "count_'$n'" 2 "--threads" bench engine --threads "$n"
done
for f in 0 1.1 -0.5 x 200%; do
	wrong "fraction_'$f'" 2 "--fraction" bench run --fraction "$f" -- true
done
wrong codec_unknown 2 "lz5" estimate --codec lz5 "$0"
"$TMEM" estimate --codec lzo "$0" >"$T/out" 2>&1
if [ $? != 2 ]; then # the module is there
	wrong codec_modules 2 ", lzo (levels" estimate --codec lz5 "$0"
else
	skip codec_modules "no module of lzo here"
fi
wrong codec_level 2 "known" estimate --codec zstd:99 "$0"
wrong codec_level_word 2 "known" bench engine --codec zstd:fast
wrong codec_empty_level 2 "known" bench engine --codec zstd:

# ---- estimate
wrong estimate_nothing 2 "which" estimate
wrong estimate_no_file 1 "/nonexistent" estimate /nonexistent
wrong estimate_directory 1 "directory" estimate /
wrong estimate_device 1 "/dev/null" estimate /dev/null
: >"$T/empty"
wrong estimate_empty 1 "empty" estimate "$T/empty"
wrong estimate_no_process 1 "999999999" estimate 999999999
wrong estimate_pid_huge 2 "99999999999" estimate 99999999999
wrong estimate_pid_zero 2 "'0'" estimate 0
wrong estimate_two_pids 2 "one PID" estimate 1 2
wrong estimate_pid_and_file 2 "one PID" estimate "$0" 1
if [ "$(id -u)" = 0 ]; then
	wrong estimate_kernel_thread 1 "kernel thread" estimate 2
	if command -v setpriv >/dev/null; then
		chmod 755 "$T"
		cp "$TMEM" "$T/tmem"
		TMEM=$T/tmem
		as_nobody() { # the same, by a user who may not
			printf '#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups %s "$@"\n' \
				"$T/tmem" >"$T/nobody"
			chmod 755 "$T/nobody"
			TMEM=$T/nobody
		}
		as_nobody
		wrong estimate_not_ours 1 "not ours" estimate 1
		wrong bench_run_not_root 1 "nonexistent" bench run -- /nonexistent/program
		TMEM=$BUILD/tmem
	fi
fi
wrong estimate_save 1 "/nonexistent" estimate --save /nonexistent/x "$TMEM"

python3 -c 'import time
d = [str(i) * 3 for i in range(100000)]
print("up", flush=True)
time.sleep(60)' >"$T/up" &
PIDS=($!)
for _ in {1..100}; do
	grep -qs up "$T/up" && break
	sleep 0.05
done
right estimate_process "could be evicted" estimate "${PIDS[0]}"
right estimate_process_json '"version": 1' estimate -J --save "$T/pages" "${PIDS[0]}"
fields estimate_json_rows 'len(d["rows"]) >= 9 and all(r["store_bytes"] >= r["compressed_bytes"] > 0
	and 0 < r["store_bytes"] < r["original_bytes"] for r in d["rows"])'
fields estimate_json_run 'd["tmem_run_default"]["saved_bytes"] > 0 and d["eligible_pages"] > 500'
fields estimate_json_clusters '{r["cluster_pages"] for r in d["rows"]} == {1, 4, 8, 16}'
fields estimate_json_left_out 'd["left_out_bytes"]["file"] > 0 and d["left_out_bytes"]["stacks"] > 0'
pages=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["read_pages"])' "$T/out")
check estimate_saved "the saved file is not $pages pages" test "$(stat -c %s "$T/pages")" = $((pages * 4096))
check estimate_saved_private "others may read it" test "$(stat -c %a "$T/pages")" = 600
right estimate_sample '"read_pages"' estimate -J --sample 25 --codec lz4 "${PIDS[0]}"
fields estimate_sample_size '0.1 < d["read_pages"] / d["eligible_pages"] < 0.4'
right estimate_max '"read_pages"' estimate -J --max 1M --codec lz4 "${PIDS[0]}"
fields estimate_max_size 'd["read_pages"] <= 256 + 64'
kill "${PIDS[0]}"
wait "${PIDS[0]}" 2>/dev/null
wrong estimate_ended 1 "${PIDS[0]}" estimate "${PIDS[0]}"
PIDS=()
right estimate_file "$TMEM" estimate --bytes --codec lz4 "$TMEM"
right estimate_files "2 files" estimate --codec lz4 "$TMEM" "$0"
printf 'x' >"$T/one"
right estimate_one_byte "4.0 KiB in 1 page" estimate --codec zstd:1 "$T/one"
check estimate_one_page "pages" sh -c '! grep -q "1 pages" "$1"' sh "$T/out"
cp "$T/one" "$T/saved"
wrong estimate_save_over 2 "is to be read" estimate --save "$T/saved" "$T/saved"
check estimate_save_over_kept "it was written over" cmp -s "$T/one" "$T/saved"
"$TMEM" estimate --codec lz4 "$T/one" >&- 2>"$T/err"
CODE=$?
check stdout_closed "exit code $CODE: $(cat "$T/err")" test "$CODE/$(grep -c 'cannot write to stdout' "$T/err")" = 1/1
if mkdir "$T/small" && mount -t tmpfs -o size=8k none "$T/small" 2>/dev/null; then
	wrong estimate_save_full 1 "No space left" estimate --save "$T/small/x" "$TMEM"
	check estimate_save_full_gone "a part of it stays" test ! -e "$T/small/x"
	umount "$T/small"
else
	skip estimate_save_full "no tmpfs can be mounted here"
fi
mkdir "$T/d" && cp "$T/one" "$T/d/123"
cd "$T/d" && right estimate_digits_file "./123" estimate --codec lz4 ./123
cd - >/dev/null || exit 1
if [ -w /dev/full ]; then
	"$TMEM" --help >/dev/full 2>"$T/err"
	check stdout_full "exit code not 1 when stdout is full" test $? = 1
fi

# ---- bench
wrong bench_engine_operand 2 "no operands" bench engine pages
wrong bench_engine_no_file 1 "/nonexistent" bench engine --pages /nonexistent
wrong bench_engine_few 1 "64" bench engine --pages "$T/one"
head -c 4194304 /dev/zero >"$T/zeros"
wrong bench_engine_zeros 1 "same-filled" bench engine --pages "$T/zeros"
right bench_engine '"command": "bench engine"' bench engine --pages "$T/pages" --no-scale --rounds 5 -J
fields bench_engine_fields 'all(isinstance(d[k], (int, float)) for k in """raw_compress_ns
	raw_decompress_ns put_ns get_ns put_over_raw get_over_raw same_filled_put_ns same_filled_get_ns
	pages original_bytes compressed_bytes store_bytes resident_growth_bytes density
	metadata_bytes_per_page""".split())'
fields bench_engine_sane 'd["original_bytes"] == d["pages"] * 4096 and
	d["original_bytes"] > d["store_bytes"] > d["compressed_bytes"]'
right bench_engine_one_thread '"scaling": null' bench engine --pages "$T/pages" --no-scale -r 1 -t 1 -J
fields bench_engine_default 'd["kind"] == "persistent" and d["zpool"] == "zsmalloc"'
wrong bench_engine_kind 2 "neither" bench engine --kind durable
wrong bench_engine_zpool 2 "unknown allocator" bench engine --zpool slab
wrong bench_engine_zbud_none 1 "shrinks enough for zbud" bench engine --pages "$T/pages" -Z zbud -c none
for z in zsmalloc zbud; do
	right "bench_engine_ephemeral_$z" "\"zpool\": \"$z\"" bench engine --pages "$T/pages" \
		--no-scale -r 1 -k ephemeral -Z "$z" -J
	fields "bench_engine_ephemeral_${z}_sane" 'd["kind"] == "ephemeral" and d["get_over_raw"] > 0 and
		d["original_bytes"] == d["pages"] * 4096 and ("churn_operations" in d) == (d["zpool"] == "zsmalloc")'
done
right bench_engine_none '"codec": "none"' bench engine --pages "$T/pages" --no-scale -r 1 -c none -J
right bench_alloc '"density"' bench alloc --pages "$T/pages" -t 1 -J
wrong bench_alloc_cluster 2 "1, 2, 4, 8 or 16" bench alloc --cluster 3
wrong bench_alloc_zeros 1 "same-filled" bench alloc --pages "$T/zeros"

# ---- bench peers; stores that are not installed are left out
wrong bench_peers_operand 2 "no operands" bench peers pages
wrong bench_peers_no_file 1 "/nonexistent" bench peers --pages /nonexistent
wrong bench_peers_few 1 "64" bench peers --pages "$T/one"
right bench_peers '"stores"' bench peers --pages "$T/pages" -r 1 -J
fields bench_peers_engine 'all(s["put_per_s"] > 0 and s["get_per_s"] > 0 and s["memory_bytes"] > 0
	for s in d["stores"] if s["store"].startswith("engine"))'
fields bench_peers_all 'len(d["stores"]) == 14 and all(s.get("not_measured") or s["memory_bytes"] > 0
	for s in d["stores"])'

# ---- bench run; with zram only where it can be had
wrong bench_run_nothing 2 "which program" bench run
wrong bench_run_both 2 "not both" bench run --limit 1G --fraction 0.5 -- true
if "$TMEM" --help | grep -qw run; then
	wrong bench_run_limit 2 "at least 32M" bench run --limit 1M -- true
	wrong bench_run_without 2 "--without takes" bench run --limit 64M --without foo -- true
	# It sleeps as long as the bench wants of a program that it measures.
	wrong bench_run_total 1 "less than the 32M" bench run --fraction 0.5 -- python3 -c 'import time; time.sleep(0.3)'
	# The agent cannot be loaded there: what was asked for is not measured.
	mkdir "$T/lonely" && cp "$TMEM" "$T/lonely" && chmod 755 "$T" "$T/lonely"
	LD_LIBRARY_PATH=$BUILD timeout 60 "$T/lonely/tmem" bench run --limit 64M --no-zram --rounds 1 -- true >"$T/out" 2>"$T/err"
	CODE=$?
	check bench_run_tmem_failed "exit code $CODE: $(cat "$T/err")" \
		test "$CODE/$(grep -c '^tmem bench run: tmem could not be measured' "$T/err")" = 1/1
fi
right bench_run_false "note: the program itself failed: exit code 1" bench run --limit 64M --no-zram --no-tmem --rounds 1 -- false
wrong bench_run_no_program 1 "/nonexistent" bench run -- /nonexistent/program
wrong bench_run_killed 1 "137" bench run -- /bin/sh -c 'kill -KILL $$'
wrong bench_run_endless 1 "did not end" bench run --timeout 1 -- sleep 100
left_behind() {
	local at
	grep -q "^/dev/zram[1-9]" /proc/swaps && echo swap
	for at in /sys/fs/cgroup/memory/tmem-bench-* /sys/fs/cgroup/tmem-bench-*; do
		[ -e "$at" ] && echo "$at"
	done
	return 0
}
before=$(left_behind)
cat >"$T/prog.py" <<'PY'
d = [("k%d" % i) * 8 for i in range(300000)]
print(sum(len(x) for _ in range(3) for x in d))
PY
right bench_run '"bare"' bench run --no-tmem --fraction 0.8 --rounds 1 --timeout 30 -J -- python3 "$T/prog.py"
fields bench_run_bare 'd["bare"]["wall_s"] > 0 and d["bare"]["peak_total_bytes"] > 10 << 20'
fields bench_run_tmem_said 'd["tmem"]["not_measured"] and d["tmem_over_bare"] is None'
why=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["zram"]["not_measured"] or "")' "$T/out")
if [ -n "$why" ]; then
	skip bench_run_zram "$why"
else
	fields bench_run_zram 'd["zram_over_bare"] > 0 and d["zram"]["peak_swapped_bytes"] > 0'
	for sig in TERM KILL; do
		"$TMEM" bench run --no-tmem --fraction 0.8 --rounds 50 -- python3 "$T/prog.py" >"$T/out" 2>"$T/err" &
		PIDS=($!)
		for ((i = 0; i < 600; i++)); do
			grep -q "^/dev/zram[1-9]" /proc/swaps && break
			sleep 0.05
		done
		check "bench_run_zram_up_$sig" "no swap came up in 30 s: $(head -n 1 "$T/err")" test $i -lt 600
		kill -$sig "${PIDS[0]}"
		wait "${PIDS[0]}" 2>/dev/null
		for _ in {1..60}; do # the watcher comes after it
			[ "$(left_behind)" = "$before" ] && break
			sleep 0.1
		done
		check "bench_run_cleans_up_$sig" "left: $(left_behind)" test "$(left_behind)" = "$before"
	done
	PIDS=()
fi
check bench_run_leaves_nothing "left: $(left_behind)" test "$(left_behind)" = "$before"

# ---- manual pages: no warnings, and every option of --help is in them
if command -v groff >/dev/null; then
	for m in "$ROOT"/docs/man/*.1; do
		head -n 1 "$m" | grep -q '^\.so ' && continue # another page by this name
		groff -mdoc -ww -z "$m" >"$T/warnings" 2>&1
		check "man_$(basename "$m")" "$(head -n 1 "$T/warnings")" test ! -s "$T/warnings"
	done
	for c in estimate run "bench mount" "bench engine" "bench alloc" "bench index" "bench run" \
		"bench peers" "bench codecs" "bench store" trace replay mount; do
		# shellcheck disable=SC2086
		# Of --help itself tmem.1 speaks.
		"$TMEM" $c --help | grep -vw help | grep -o -- ' --[a-z][a-z-]*' | sort -u | while read -r o; do
			grep -q -- "${o#-}" "$ROOT/docs/man/tmem-${c%% *}.1" || echo "$o"
		done >"$T/missing"
		check "man_options_${c// /_}" "not in the manual: $(tr '\n' ' ' <"$T/missing")" test ! -s "$T/missing"
	done
	default=$("$TMEM" run --help | sed -n 's/.*--codec.*default: //p')
	check man_default_codec "tmem-run.1 does not name the default $default" \
		grep -qF -- "$default" "$ROOT/docs/man/tmem-run.1"
	techniques=$("$TMEM" run --help | sed -n 's/.*--without NAMES .*bring: //p' | tr -d ,)
	for t in ${techniques:-none}; do
		grep -qE "^\.Cm $t( |$)" "$ROOT/docs/man/tmem-run.1" || echo "$t"
	done >"$T/missing"
	check man_techniques "not in tmem-run.1: $(tr '\n' ' ' <"$T/missing")" test ! -s "$T/missing"
else
	skip man "groff is not installed"
fi
finish
