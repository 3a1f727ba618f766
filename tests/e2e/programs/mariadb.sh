# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# MariaDB: InnoDB's buffer pool (anonymous memory that is read into past the page cache), sorts,
# joins, transactions, several connections; the tables are checked, and read again after a restart.
PACKAGES=(mariadb-server mariadb-client)
prepare() {
	mariadb-install-db --no-defaults --user=root --datadir="$P/data" --auth-root-authentication-method=normal \
		--skip-test-db >"$P/log" 2>&1
}
sql() { mariadb --no-defaults -uroot -S "$W/s" -N -B "$@"; }
start() {
	server_start mariadbd --no-defaults --user=root --datadir="$W/data" --socket="$W/s" --skip-networking \
		--pid-file="$W/pid" --innodb-buffer-pool-size=96M --innodb-flush-method=O_DIRECT --innodb-flush-log-at-trx-commit=2 \
		--sort-buffer-size=32M --join-buffer-size=8M --tmp-table-size=64M --max-heap-table-size=64M --innodb-log-file-size=32M
	until_up 60 sql -e 'select 1'
}
stop() { sql -e shutdown && server_wait; }
checks() {
	sql db -e "select count(*), sum(k), sum(crc32(v)), sum(length(pad)) from t;
		select count(*), sum(a.k * b.w) from t a join u b on a.v = b.v;
		select g, count(*), min(v), max(v) from t group by g order by g limit 5;
		select sum(crc32(concat(v, n))) from (select v, row_number() over (order by v desc, k) n from t) x;
		check table t, u extended;"
}
workload() {
	cp -a "$P/data" "$W/data" && start || return
	sql -e "create database db; use db;
		create table t (k int primary key, v char(32), g int, pad varchar(200), index (v)) engine=innodb;
		create table u (v char(32) primary key, w int) engine=innodb;
		insert into t select seq, md5(seq), seq % 1000, repeat(char(97 + seq % 26), 40 + seq % 100) from seq_1_to_200000;
		insert into u select v, k from t where k % 3 = 0;" || return
	checks >"$W/second" &
	checks || return
	wait $!
	cmp "$W/second" <(checks) || return
	sql db -e "begin; delete from t where k % 2 = 0; rollback; begin; update t set g = g + 1, pad = concat(pad, 'z') where k % 5 = 0; commit;"
	for c in 1 2 3 4; do sql db -e "insert into t select 200000 + $c * 10000 + seq, md5(seq * $c), $c, 'new' from seq_1_to_5000" & jobs[c]=$!; done
	wait "${jobs[@]}" && checks && stop || return
	RUN=()
	start && checks && stop
}
