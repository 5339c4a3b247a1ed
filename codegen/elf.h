/* elf.h — joins relocatable ELF64 files that lie in memory into one.
 *
 *   kernel bytes ─┐
 *   kernel bytes ─┼→ sections of one name joined, symbols resolved → one .o
 *   entry bytes  ─┤
 *   weights blob ─┘  (streamed to the sink, never copied)
 *
 * What `ld -r` with a version script would do, without a linker: the object that a user
 * gets has just its public symbols global, and needs nothing beyond memory functions and
 * libm. Little-endian x86-64 and AArch64. COMDAT groups, common symbols, REL relocations and
 * link-order sections, which our code generator never makes, are refused.
 */
#ifndef CG_ELF_H
#define CG_ELF_H
#include "ir/ctx.h"

#define CG_ELF_BLOB_AT 4096 /* known before the code is, so that the blob can be written ahead */

typedef struct cg_elf_input {
  const void *bytes; /* a relocatable ELF64 file; any alignment */
  size_t size;
  const char *what;  /* for messages: "kernel conv1", ... */
} cg_elf_input;

typedef struct cg_elf_name { /* a global that becomes local, and the name to write it under */
  const char *symbol, *show;
} cg_elf_name;

typedef struct cg_elf_job {
  int ninputs;
  const cg_elf_input *inputs;
  int npublic;
  const char *const *publics; /* names that stay global; each must be defined by an input */
  int nnames;
  const cg_elf_name *names;
  /* Data that becomes a read-only section of its own, ".rodata.<blob_symbol>", aligned to 64
   * bytes, CG_ELF_BLOB_AT bytes from the start of the file, with a local symbol that inputs may refer to. blob_symbol null: none. Beyond 1 GiB on
   * x86-64 it is a large-data section, which linkers lay out of the way of 32-bit distances. */
  const char *blob_symbol;
  const void *blob;
  uint64_t blob_bytes;
} cg_elf_job;

/* Writes the joined file front to back through `write`, in any number of pieces. Throws TN_EINTERNAL
 * when an input is damaged or of another machine, when two inputs define the same symbol, and
 * when a symbol other than memcpy, memset, memmove or a libm function stays undefined. */
void cg_elf_write(tn_ctx *ctx, const cg_elf_job *job,
                  void (*write)(void *user, const void *data, size_t n), void *user);

/* Whether an object may leave this symbol to the program it is linked into. */
bool cg_elf_may_need(const char *name);
#endif
