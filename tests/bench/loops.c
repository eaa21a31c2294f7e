/* The limits that recording and promotion are held against: the same steps on the same arrays, and no more. */

#define _GNU_SOURCE
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SECTION_SHIFT = 15, ORDER = 0x0f, LRU = 0x10 };

/* The folio's head, or -1 for an access that is dropped: not on this lower-tier node, or not on an LRU list. */
static inline int64_t tracked_head(int64_t pfn, const int16_t *section_nid, int16_t nid, const uint8_t *state)
{
	uint8_t s;

	if (section_nid[pfn >> SECTION_SHIFT] != nid)
		return -1;
	s = state[pfn];
	if (!(s & LRU))
		return -1;
	return pfn & -((int64_t)1 << (s & ORDER));
}

/* One byte a record: one access at a given time is a table of 256. */
long record_default(const int64_t *pfns, long nr, uint8_t *records, int64_t first, const uint8_t *state,
		    const int16_t *section_nid, int16_t nid, uint8_t *hot, const uint8_t *step)
{
	long recorded = 0;

	for (long i = 0; i < nr; i++) {
		int64_t head = tracked_head(pfns[i], section_nid, nid, state);
		uint8_t record;

		if (head < 0)
			continue;
		recorded++;
		record = step[records[head - first]];
		records[head - first] = record;
		if (record & 0x80)
			hot[head >> SECTION_SHIFT] = 1;
	}
	return recorded;
}

/* Four bytes a record: frequency, time and accessing node. */
long record_precise(const int64_t *pfns, long nr, uint32_t *records, int64_t first, const uint8_t *state,
		    const int16_t *section_nid, int16_t nid, uint8_t *hot, uint32_t target, uint32_t now,
		    uint32_t window, uint32_t threshold)
{
	long recorded = 0;

	for (long i = 0; i < nr; i++) {
		int64_t head = tracked_head(pfns[i], section_nid, nid, state);
		uint32_t record, frequency;

		if (head < 0)
			continue;
		recorded++;
		record = records[head - first];
		frequency = (record >> 10) & 7;
		if (((now - (record >> 13)) & 0x3fff) > window)
			frequency = 1;
		else if (frequency < 7)
			frequency++;
		record = (record & 0x80000000u) | (now & 0x3fff) << 13 | frequency << 10 | target;
		if (frequency >= threshold)
			record |= 0x80000000u;
		records[head - first] = record;
		if (record & 0x80000000u)
			hot[head >> SECTION_SHIFT] = 1;
	}
	return recorded;
}

/* move_pages(2) and nothing around it: `nr` addresses of a process to node `nid`, `batch` a call; how many are there. */
long move_all(int pid, void **addresses, long nr, long batch, int nid)
{
	int nodes[512], status[512];
	long there = 0;

	for (long i = 0; i < batch; i++)
		nodes[i] = nid;
	for (long done = 0; done < nr; done += batch) {
		long count = nr - done < batch ? nr - done : batch;

		for (long i = 0; i < count; i++)
			status[i] = -1;
		syscall(SYS_move_pages, pid, count, addresses + done, nodes, status, 2);
		for (long i = 0; i < count; i++)
			there += status[i] == nid;
	}
	return there;
}
