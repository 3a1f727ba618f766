# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Perl: hashes and strings, fork, regular expressions over long strings.
PACKAGES=(perl)

prepare() {
	cat >work.pl <<'PL'
use strict; use warnings; use Digest::SHA qw(sha256_hex);
my (%map, @list);
for my $i (0 .. 120_000) { my $s = "item $i " . ($i * 7919 % 10007) . ('x' x ($i % 40)); push @list, $s; $map{$s} = [$i, $i % 7]; }
my $d = Digest::SHA->new(256);
for my $r (0 .. 2) {
	for my $i (0 .. $#list) { die "wrong $i" unless $map{$list[$i]}[0] == $i && $list[$i] =~ /^item $i /; }
	$d->add(join ',', @list[grep { $_ % 3 == $r } 0 .. $#list]);
	my %copy = map { $_ => 1 } @list[0 .. 30_000];
	$d->add(scalar keys %copy);
}
for my $k (0 .. 3) {
	my $pid = open(my $fh, '-|') // die;
	if (!$pid) { print sha256_hex(join '', map { $list[$_ * 4 + $k] } 0 .. 30_000); exit 0; }
	print <$fh>, "\n"; close $fh or die "child: $?";
}
my $text = join ' ', @list; my $n = () = $text =~ /item \d*77\d* \d+x{3,9}\b/g;
print "$n ", $d->hexdigest, "\n";
PL
}
workload() { "${RUN[@]}" perl "$P/work.pl"; }
