# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# fio: libaio past the page cache, every block verified, its buffers in memory that leaves.
PACKAGES=(fio)
FIO=(--ioengine=libaio)
workload() {
	"${RUN[@]}" fio --name=v --directory="$W" --size=192M --direct=1 --rw=randwrite --bs=1M --iodepth=48 --numjobs=2 --thread \
		--iomem=mmap --verify=pattern --verify_pattern=%o --verify_fatal=1 --do_verify=1 --randseed=5 --group_reporting --output-format=json --lat_percentiles=0 \
		--log_avg_msec=10 --write_lat_log="$W/lat" "${FIO[@]}" --output="$W/out.json" >"$W/fio.log" 2>&1 || return
	python3 - "$W/out.json" <<-'PY'
		import json, sys
		t = open(sys.argv[1]).read()
		for j in json.loads(t[t.index('{'):])["jobs"]:
		    print(j["jobname"], "error", j["error"], "written", j["write"]["io_bytes"], "verified", j["read"]["io_bytes"])
	PY
}
