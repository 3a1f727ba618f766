#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The sqlite3 shell with a database in memory: tables, indexes, joins, updates, a quick_check (a full
# one looks every index entry up in its table: nothing but random access).
. "$(dirname "$0")/lib.sh"
need_program sqlite3
need_run

rows=$([ -n "$LONG" ] && echo 2500000 || echo 500000)
cat >"$T/work.sql" <<SQL
PRAGMA journal_mode=OFF;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price INTEGER, note TEXT);
INSERT INTO item
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $rows)
  SELECT i, 'item ' || (i * 7919 % 1000003), i * 104729 % 99991,
         'note of ' || i || ': ' || hex(i * 2654435761) || ' lies on shelf ' || (i % 977) FROM n;
CREATE INDEX item_name ON item(name);
CREATE INDEX item_price ON item(price, name);
SELECT count(*), sum(price), sum(length(note)) FROM item;
UPDATE item SET note = note || ' sold' WHERE price % 17 = 3;
DELETE FROM item WHERE id % 101 = 5;
SELECT price % 10, count(*), min(name), max(note) FROM item GROUP BY 1 ORDER BY 1;
SELECT a.name, b.id, b.note FROM item a JOIN item b ON b.name = a.name AND b.id > a.id
  WHERE a.price BETWEEN 500 AND 900 ORDER BY a.id, b.id LIMIT 500;
SELECT name, count(*) c FROM item GROUP BY name ORDER BY c DESC, name LIMIT 20;
SELECT sum(length(name) * id % 1009), sum(length(note) * id % 1013) FROM item;
PRAGMA quick_check;
SQL
half sqlite sqlite3 -batch :memory: ".read $T/work.sql"
check sqlite.integrity "quick_check did not say ok" \
	test "$(tail -n 1 "$T/sqlite.tmem.out")" = ok
finish
