# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# PHP: its own heap of 2 MiB blocks, arrays, and the compiler's cache for the command line.
PACKAGES=(php-cli)
prepare() {
	cat >work.php <<'PHP'
<?php
ini_set('memory_limit', '-1');
$list = []; $map = [];
for ($i = 0; $i < 400000; $i++) { $s = "item $i " . ($i * 7919 % 10007) . str_repeat('x', $i % 40); $list[] = $s; $map[$s] = [$i, $i % 7]; }
$h = hash_init('sha256');
for ($r = 0; $r < 3; $r++) {
	foreach ($list as $i => $s) if ($map[$s][0] !== $i) { fprintf(STDERR, "wrong %d\n", $i); exit(1); }
	for ($i = $r; $i < count($list); $i += 7) hash_update($h, $list[$i]);
	$copy = array_map(fn($s) => strrev($s), array_slice($list, $r * 50000, 60000));
	sort($copy); hash_update($h, implode(',', $copy)); unset($copy); gc_collect_cycles();
}
echo hash_final($h), "\n";
PHP
}
workload() { "${RUN[@]}" php "$P/work.php"; }
