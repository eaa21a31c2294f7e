/*
 * One file, served with libfuse's low-level API by one thread: what opening, reading and closing a file costs at least.
 * The C counterpart of tests/bench/minimal_file.py, with the same answers.
 *
 * minimal_file MOUNTPOINT: prints `ready` once mounted, and serves until it gets SIGTERM.
 */
#define FUSE_USE_VERSION 31

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_INODE 2
#define TIMEOUT_S 1.0

static const char name[] = "file";
static const char content[] = "100\n";

static struct stat attributes(fuse_ino_t ino)
{
	struct stat stat = { .st_ino = ino };

	stat.st_mode = ino == FILE_INODE ? S_IFREG | 0644 : S_IFDIR | 0755;
	stat.st_nlink = 1;
	stat.st_size = ino == FILE_INODE ? 4096 : 0;
	return stat;
}

static void lookup(fuse_req_t req, fuse_ino_t parent, const char *wanted)
{
	struct fuse_entry_param entry = { .ino = FILE_INODE, .attr_timeout = TIMEOUT_S, .entry_timeout = TIMEOUT_S };

	if (parent != FUSE_ROOT_ID || strcmp(wanted, name)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	entry.attr = attributes(FILE_INODE);
	fuse_reply_entry(req, &entry);
}

static void getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat stat = attributes(ino);

	(void)fi;
	fuse_reply_attr(req, &stat, TIMEOUT_S);
}

static void open_file(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->fh = 1;
	fi->direct_io = 1;
	fi->keep_cache = 0;
	fuse_reply_open(req, fi);
}

static void read_file(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	size_t length = sizeof(content) - 1;
	size_t start = (size_t)offset < length ? (size_t)offset : length;

	(void)ino;
	(void)fi;
	fuse_reply_buf(req, content + start, size < length - start ? size : length - start);
}

static void release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = lookup,
	.getattr = getattr,
	.open = open_file,
	.read = read_file,
	.release = release,
};

int main(int argc, char *argv[])
{
	char *options[] = { argv[0], "-o", "fsname=minimal_c,default_permissions" };
	struct fuse_args args = FUSE_ARGS_INIT(3, options);
	struct fuse_session *session;
	int failed;

	if (argc != 2) {
		fprintf(stderr, "usage: %s MOUNTPOINT\n", argv[0]);
		return 2;
	}
	session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, argv[1]))
		return 1;
	puts("ready");
	fflush(stdout);
	failed = fuse_session_loop(session);
	fuse_session_unmount(session);
	fuse_remove_signal_handlers(session);
	fuse_session_destroy(session);
	return failed != 0;
}
