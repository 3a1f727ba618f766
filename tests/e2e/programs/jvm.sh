# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A JVM with its default collector: a graph of objects that is changed and walked, the collector at
# work all the time, several threads, and what came out.
PACKAGES=(openjdk-17-jdk-headless)
JVM_FLAGS=(-Xmx256m -Xms64m)
prepare() {
	cat >Work.java <<'JAVA'
import java.util.*;
import java.util.concurrent.*;
import java.util.zip.CRC32;
public class Work {
	static final class Node { long id; String text; Node left, right; byte[] data; }
	static Node make(long id, int depth) {
		Node n = new Node();
		n.id = id;
		n.text = "node " + id + " of the tree, at depth " + depth;
		n.data = new byte[64];
		for (int i = 0; i < 64; i++) n.data[i] = (byte) (id * 31 + i % 7);
		if (depth > 0) { n.left = make(id * 2, depth - 1); n.right = make(id * 2 + 1, depth - 1); }
		return n;
	}
	static void walk(Node n, CRC32 c) {
		if (n == null) return;
		if (!n.text.startsWith("node " + n.id + " ")) throw new RuntimeException("wrong text at " + n.id + ": " + n.text);
		for (int i = 0; i < 64; i++) if (n.data[i] != (byte) (n.id * 31 + i % 7)) throw new RuntimeException("wrong data at " + n.id);
		c.update((int) n.id); c.update(n.data);
		walk(n.left, c); walk(n.right, c);
	}
	public static void main(String[] a) throws Exception {
		int threads = 3, depth = Integer.parseInt(a[0]);
		ExecutorService pool = Executors.newFixedThreadPool(threads);
		List<Future<Long>> out = new ArrayList<>();
		for (int t = 0; t < threads; t++) {
			final int me = t;
			out.add(pool.submit(() -> {
				Node keep = make(1, depth);
				CRC32 c = new CRC32();
				Map<String, byte[]> map = new HashMap<>();
				for (int r = 0; r < 12; r++) {
					for (int i = 0; i < 20000; i++) map.put("k" + (i * 7 + r * 13) % 5000, new byte[200 + (i + r) % 300]);
					Node spare = make(1, depth - 2);
					if (r % 4 == 3) { walk(spare, c); walk(keep, c); }
				}
				for (String k : new TreeSet<>(map.keySet())) c.update(map.get(k).length);
				return c.getValue() + me;
			}));
		}
		for (Future<Long> f : out) System.out.println("sum " + f.get());
		pool.shutdown();
		System.out.println("right");
	}
}
JAVA
	javac Work.java
}
workload() { "${RUN[@]}" java "${JVM_FLAGS[@]}" -cp "$P" Work 16; }
