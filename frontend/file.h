/* file.h — files as the front ends see them: read-only maps, atomic writing,
 * paths that must stay inside a folder, and plain arrays read from or written to them.
 *
 * Bytes that come from a map are never copied unless a format forces it. A map lives
 * as long as its context (or until an enclosing ir_protect unwinds by a throw). A file
 * that somebody truncates while it is mapped raises SIGBUS: not guarded against.
 */
#ifndef FE_FILE_H
#define FE_FILE_H
#include "ir/ctx.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the readers hand out little-endian bytes as they lie in the file"
#endif

/* A mapped file. `data` is page-aligned and never null, also for an empty file. */
typedef struct fe_map {
  const void *data;
  size_t size;      /* bytes */
  const char *path; /* as it was given */
} fe_map;

/* Maps a regular file read-only. Throws TN_ERESOURCE when it cannot be opened,
 * TN_EINPUT when it is no regular file (folder, pipe, device). */
const fe_map *fe_map_file(tn_ctx *ctx, const char *path);
/* Maps `location`, a path relative to `folder` ("" is the current folder), after checking
 * that it stays inside: not absolute, no "..", and the real path (symbolic links followed)
 * lies under the real path of the folder. `where` begins the messages ("model.onnx: tensor 'w'").
 * Throws TN_EINPUT when it escapes, else as fe_map_file. */
const fe_map *fe_map_inside(tn_ctx *ctx, const char *folder, const char *location, const char *where);
/* Tells the system that the pages wholly inside [p, p + n) of a map are not needed for now:
 * they leave the resident set and are read again if touched. */
void fe_map_drop(const fe_map *m, const void *p, size_t n);

/* "folder/name"; `name` alone when the folder is "" or null. */
char *fe_path_join(tn_ctx *ctx, const char *folder, const char *name);
/* The part before the last '/', "" if none, "/" for a file in the root. */
char *fe_path_folder(tn_ctx *ctx, const char *path);

/* Writing that leaves either the whole new file or the old one: bytes go to a temporary
 * beside the target, which fe_write_end syncs and renames over it; a throw, fe_write_abort or
 * the end of the context removes it. A target that exists and is no regular file (a device,
 * a pipe) is written directly. All throw TN_ERESOURCE with the system's reason. */
typedef struct fe_writer fe_writer;
fe_writer *fe_write_begin(tn_ctx *ctx, const char *path);
/* The same for what can be made again, such as an object file: nothing waits for the disk, as no linker does. */
fe_writer *fe_write_begin_product(tn_ctx *ctx, const char *path);
void fe_write(fe_writer *w, const void *data, size_t n);
/* The n bytes at offset `at` will be written before their turn, zeros where fe_write_at puts nothing; fe_write passes
 * over as many there. False: not in this file. Once in the life of a writer; neither throws, so that another thread may call them
 * beside what else goes on with the writer: fe_write tells of errors. */
bool fe_write_ahead(fe_writer *w, size_t at, size_t n);
void fe_write_at(fe_writer *w, size_t at, const void *data, size_t n); /* within those n */
void fe_write_settle(fe_writer *w); /* all is written under the temporary name: what is left to fe_write_end hardly fails */
void fe_write_end(fe_writer *w);
void fe_write_abort(fe_writer *w); /* never throws; nothing happens after fe_write_end */
void fe_write_file(tn_ctx *ctx, const char *path, const void *data, size_t n);

/* Files and empty folders that must not outlast this process; a writer's temporary is one by itself. What it notes is
 * for fe_leave_nothing, which a program may call from a signal's handler: it unlinks what is noted and calls nothing that
 * a handler may not, and nothing happens in a process forked since. No room, or a path too long, goes unnoted (-1). */
int fe_note_temporary(const char *path);
void fe_forget_temporary(int note); /* -1: nothing */
void fe_leave_nothing(void);

/* An array as it lies in a file: C order, little-endian, `data` aligned to nothing.
 * Booleans are 0 or 1: a reader normalises other bytes. */
typedef struct fe_array {
  const char *name; /* "" when the format has none */
  tn_dtype dtype;   /* TN_NONE: a type that Tenon does not compute with */
  int rank;
  const int64_t *dims; /* rank of them, each >= 0; null when rank is 0 */
  int64_t count;       /* their product; 1 when rank is 0 */
  const void *data;    /* null only when there are no bytes */
  size_t bytes;
  bool unnamed;        /* dtype is a float of a byte, the file does not say which */
} fe_array;

/* Product of dims; false on a negative dimension or overflow of int64 (a zero anywhere
 * gives 0 even where the others would overflow). */
bool fe_dims_count(const int64_t *dims, int rank, int64_t *count);
/* Bytes of booleans as 0 or 1: `data` itself when it is clean, else a copy. */
const void *fe_clean_bools(tn_ctx *ctx, const void *data, size_t n);
/* Untrusted text made fit for a message: quotes, control and non-ASCII bytes become \xNN,
 * more than 80 characters are cut with "...". */
const char *fe_show(tn_ctx *ctx, const char *s, size_t n);
#endif
