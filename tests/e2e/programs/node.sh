# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Node.js: objects, strings, typed arrays, workers and child processes; the collector moves all of it.
PACKAGES=(nodejs)
prepare() {
	cat >work.js <<'JS'
const { Worker, isMainThread, workerData, parentPort } = require('worker_threads');
const crypto = require('crypto'), zlib = require('zlib'), cp = require('child_process');
function work(seed, n) {
	const list = [], map = new Map();
	let x = seed;
	for (let i = 0; i < n; i++) {
		x = (x * 1103515245 + 12345) & 0x7fffffff;
		const o = { id: i, name: 'item ' + (x % 9973), tags: ['a' + i % 7, 'b' + i % 11], data: Buffer.alloc(64, i & 255) };
		list.push(o);
		map.set('key ' + i, o);
	}
	const h = crypto.createHash('sha256');
	for (let r = 0; r < 3; r++) {
		for (let i = 0; i < n; i += 3) list[i] = Object.assign({ round: r }, list[i]);
		for (let i = r; i < n; i += 5) {
			const o = map.get('key ' + i);
			if (o.id !== i || o.data[63] !== (i & 255)) throw new Error('wrong object ' + i);
			h.update(o.name); h.update(o.data);
		}
		h.update(JSON.stringify(list.slice(r * 1000, r * 1000 + 2000)));
		const z = zlib.gzipSync(Buffer.concat(list.map(o => o.data)));
		h.update(zlib.gunzipSync(z));
	}
	return h.digest('hex');
}
if (!isMainThread) parentPort.postMessage(work(workerData, 40000));
else {
	const jobs = [1, 2].map(s => new Promise((yes, no) => { const w = new Worker(__filename, { workerData: s }); w.on('message', yes); w.on('error', no); }));
	const main = work(0, 120000);
	Promise.all(jobs).then(sums => {
		for (let i = 0; i < 5; i++) {
			const r = cp.spawnSync('sha256sum', { input: 'child ' + i });
			console.log(r.stdout.toString().trim());
		}
		console.log(main); sums.forEach(s => console.log(s)); console.log(work(0, 120000) === main ? 'right' : 'WRONG');
	}).catch(e => { console.error(e); process.exit(1); });
}
JS
}
workload() { "${RUN[@]}" node "$P/work.js"; }
