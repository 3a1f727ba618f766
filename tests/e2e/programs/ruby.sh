# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Ruby: strings, hashes, its collector with compaction, threads, fork.
PACKAGES=(ruby)
PEAK_OF=peak_one_bytes # four children share it
prepare() {
	cat >work.rb <<'RB'
require 'digest'
srand(5)
list = Array.new(200_000) { |i| "item #{i} #{i * 7919 % 10007} " + 'x' * (i % 40) }
map = {}
list.each_with_index { |s, i| map[s] = { id: i, tags: [i % 7, i % 11] } }
d = Digest::SHA256.new
3.times do |r|
  GC.start
  (GC.compact rescue nil) if r == 1
  list.each_with_index { |s, i| raise "wrong #{i}" unless map[s][:id] == i && s.start_with?("item #{i} ") }
  list.each_slice(1000) { |p| d << p.join }
  garbage = Array.new(50_000) { |i| "garbage #{i}" * 3 }
  d << garbage.last
end
kids = (0...4).map { |k| r, w = IO.pipe; pid = fork { r.close; w.write Digest::SHA256.hexdigest(list.each_slice(4).map { |a| a[k] }.join); w.close; exit!(0) }; w.close; [pid, r] }
kids.each { |pid, r| puts r.read; Process.wait pid; raise 'child' unless $?.success? }
puts (0...4).map { |t| Thread.new { Digest::SHA256.hexdigest(list[t * 50_000, 50_000].join) } }.map(&:value)
puts d.hexdigest
RB
}
workload() { "${RUN[@]}" ruby "$P/work.rb"; }
