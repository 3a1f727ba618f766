# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# PostgreSQL: a server of many processes that share memory, hash joins and sorts in memory of their
# own, parallel workers, vacuum, savepoints; pgbench, whose sums must agree; and the data, read
# after a restart. The server runs as a user of its own.
PACKAGES=(postgresql-15 util-linux)
PG=/usr/lib/postgresql/15/bin
as_user postgres
prepare() {
	chown postgres .
	setpriv --reuid=postgres --regid=postgres --clear-groups "$PG/initdb" -D "$P/data" -A trust \
		--no-sync -E UTF8 --locale=C >/dev/null
}
sql() { "$PG/psql" -h "$W" -U postgres -qAtX -v ON_ERROR_STOP=1 "$@"; }
start() {
	server_start "$PG/postgres" -D "$W/data" -k "$W" -c listen_addresses= -c fsync=off \
		-c shared_buffers=16MB -c work_mem=48MB -c maintenance_work_mem=48MB -c max_parallel_workers_per_gather=2 \
		-c jit=off -c hash_mem_multiplier=2
	until_up 60 sql -c 'select 1'
}
stop() {
	kill -INT "$(head -n 1 "$W/data/postmaster.pid")"
	server_wait
}
checks() {
	sql <<-'SQL'
		select count(*), sum(k), md5(string_agg(v, ',' order by k)) from t where k % 7 = 3;
		select count(*), sum(a.k::bigint * b.w) from t a join u b on a.v = b.v;
		select g, count(*), min(v), max(v) from t group by g order by g limit 5;
		select md5(string_agg(v, '' order by v desc, k)) from t where k < 60000;
		select count(*) from (select distinct v, g from t) x;
	SQL
}
workload() {
	cp -a "$P/data" "$W/data" && chown postgres "$W" && start || return
	sql <<-'SQL' || return
		create table t as select k, md5(k::text) v, k % 1000 g, repeat(chr(97 + k % 26), 40 + k % 50) pad
			from generate_series(1, 300000) k;
		create table u as select v, k as w from t where k % 3 = 0;
		create index on t (v); analyze;
	SQL
	checks >"$W/first" &
	a=$!
	checks >"$W/second" &
	b=$!
	checks && wait $a && wait $b || return
	cmp "$W/first" "$W/second" && cmp "$W/first" <(checks) || return
	sql -c 'begin; update t set g = g + 1 where k % 5 = 0; savepoint a; delete from t where k % 2 = 0; rollback to a; commit; select sum(g) from t'
	sql -c 'vacuum full t' && sql -c 'select sum(g), count(distinct v) from t'
	"$PG/pgbench" -h "$W" -U postgres -i -q -s 2 postgres >"$W/init.log" 2>&1 || return
	"$PG/pgbench" -h "$W" -U postgres -c 8 -j 2 -t 200 postgres >"$W/bench.log" 2>&1 || return
	sql -c "select count(*) from pgbench_history" -c "select (select sum(delta) from pgbench_history) = (select sum(abalance) from pgbench_accounts)
		and (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)
		and (select sum(delta) from pgbench_history) = (select sum(bbalance) from pgbench_branches)"
	stop || return
	# What it wrote, read by a server that is not limited.
	RUN=("${WRAP[@]}")
	start && checks && stop
}
