# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Chromium, headless: many processes (some forked by a zygote, by system calls of its own), V8,
# its partition allocator; a page that builds and checks data, and says what came out.
PACKAGES=(chromium)
LEAST=256 # nine processes with 15 MiB each that stay: data of the program that was relocated
FLAGS=(--no-sandbox --no-zygote) # a zygote must have a single thread: see chromium-zygote
prepare() {
	cat >page.html <<'HTML'
<!DOCTYPE html><html><body><pre id=out>not done</pre><script>
function work(n) {
	const list = [], map = new Map(); let x = 7, sum = 0;
	for (let i = 0; i < n; i++) { x = (x * 1103515245 + 12345) & 0x7fffffff; const o = {id: i, name: 'item ' + x % 9973, data: new Uint8Array(64).fill(i & 255)}; list.push(o); map.set('k' + i, o); }
	for (let r = 0; r < 3; r++) {
		for (let i = 0; i < n; i++) { const o = map.get('k' + i); if (o.id !== i || o.data[63] !== (i & 255)) throw new Error('wrong ' + i); sum = (sum * 31 + o.name.length + o.data[5]) >>> 0; }
		for (let i = r; i < n; i += 4) { list[i] = Object.assign({r}, list[i]); map.set('k' + i, list[i]); }
	}
	return sum;
}
const lines = [];
try {
	lines.push('sum ' + work(150000));
	const big = []; for (let i = 0; i < 20000; i++) { const d = document.createElement('p'); d.textContent = 'paragraph ' + i; document.body.appendChild(d); big.push(d); }
	let ok = 0; for (let i = 0; i < 20000; i++) ok += big[i].textContent === 'paragraph ' + i; lines.push('paragraphs ' + ok);
	for (const d of big) d.remove();
	const c = document.createElement('canvas'); c.width = c.height = 1000; const g = c.getContext('2d'); for (let i = 0; i < 1000; i++) { g.fillStyle = 'rgb(' + i % 256 + ',0,' + (255 - i % 256) + ')'; g.fillRect(i, 0, 1, 1000); }
	const px = g.getImageData(0, 500, 1000, 1).data; let h = 0; for (const b of px) h = (h * 31 + b) >>> 0; lines.push('pixels ' + h);
	lines.push('again ' + work(150000));
} catch (e) { lines.push('WRONG ' + e); }
document.getElementById('out').textContent = lines.join('\n');
</script></body></html>
HTML
}
workload() {
	"${RUN[@]}" chromium --headless --disable-gpu "${FLAGS[@]}" --user-data-dir="$W/profile" \
		--no-first-run --disable-extensions --disable-breakpad --timeout=120000 --dump-dom "file://$P/page.html" 2>"$W/server.log" |
		sed -n '/<pre/,/<\/pre>/p'
	[ "${PIPESTATUS[0]}" = 0 ]
}
