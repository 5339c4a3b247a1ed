/* llvm_mem.h — addresses and accesses of one value; shared by the files that load and store. */
#ifndef CG_LLVM_MEM_H
#define CG_LLVM_MEM_H
#include "codegen/llvm.h"

typedef struct cg_address {
  cg_val at;     /* pointer without the displacement */
  int64_t disp;  /* bytes */
  int64_t align; /* of the sum; a power of two, at most 64 */
} cg_address;

/* How the offsets of the lanes lie: 1, -1, 2 to 4 elements apart; any other constants; not known. */
typedef enum cg_lane_pattern { CG_LANES_CONTIGUOUS, CG_LANES_REVERSED, CG_LANES_STRIDED, CG_LANES_CONSTANT, CG_LANES_GENERAL } cg_lane_pattern;

int64_t cg_bytes_of(const cg_buf *b); /* of an element */
cg_address cg_address_of(cg_fn *f, const cg_buf *b, ix offset);
/* Sum of coef * size of element * term over the terms that `use` allows (null: all). */
LLVMValueRef cg_byte_sum(cg_fn *f, const cg_buf *b, const cg_sum *s, const bool *use);
LLVMValueRef cg_offset_by(cg_fn *f, LLVMValueRef p, int64_t bytes);
/* Does every value of the index name an element of the buffer, or else padding that its layout adds? */
bool cg_in_memory(cg_fn *f, const ir_buf *buf, const ix *index);

/* Accesses at p, where the builder is, marked with what b may alias. */
LLVMValueRef cg_load_at(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMTypeRef t, unsigned align);
void cg_store_at(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMValueRef v, unsigned align);
/* Contiguous lanes under a mask; lanes that are off load as zero. */
LLVMValueRef cg_masked_load(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMTypeRef t, LLVMValueRef mask, unsigned align);
void cg_masked_store(cg_fn *f, const cg_buf *b, LLVMValueRef p, LLVMValueRef v, LLVMValueRef mask, unsigned align);
/* Calls the intrinsic llvm.masked.NAME whose n arguments are `args`, the pointer being number `at`. */
LLVMValueRef cg_masked(cg_fn *f, const cg_buf *b, const char *name, LLVMTypeRef data, int at, int n, LLVMValueRef *args, unsigned align);
LLVMValueRef cg_any_lane(cg_fn *f, LLVMValueRef mask); /* of a mask that is on; a scalar condition is itself */

/* How the lanes' offsets lie, relative to *base, the offset of lane 0; d[i] in elements for all but CG_LANES_GENERAL. */
cg_lane_pattern cg_lane_pattern_of(cg_fn *f, ix offset, ix *base, int64_t *d);
LLVMValueRef cg_lane_constants(cg_fn *f, const int64_t *d, int64_t scale);
/* Pointers of all lanes in the general case; r is joined with what they depend on. */
LLVMValueRef cg_lane_pointers(cg_fn *f, const cg_buf *b, ix offset, cg_val *r);
LLVMValueRef cg_reverse(cg_fn *f, LLVMValueRef v);
LLVMValueRef cg_lane(cg_fn *f, LLVMValueRef v, int i);
LLVMValueRef cg_with_lane(cg_fn *f, LLVMValueRef v, LLVMValueRef x, int i);
LLVMValueRef cg_piece(cg_fn *f, LLVMValueRef v, int from, int n); /* n lanes from `from`; one: a scalar */

/* Register buffers: the value of a slot, and the place of an access in elements, lane 0 and from lane to lane. */
LLVMValueRef cg_slot(cg_fn *f, cg_buf *b, int64_t i);
void cg_slot_place(cg_fn *f, const cg_buf *b, const ix *index, int64_t *base, int64_t *stride);
#endif
