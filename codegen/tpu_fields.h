/* tpu_fields.h — where each field of an instruction lies and what it is called in text: shared by
 * assembler, disassembler and checks. */
#ifndef CG_TPU_FIELDS_H
#define CG_TPU_FIELDS_H
#include "codegen/tpu_isa.h"

typedef enum tpu_field_kind {
  TPU_F_U8, TPU_F_I16, TPU_F_I32, TPU_F_I64, TPU_F_FN, TPU_F_UNIT, TPU_F_AFTER, TPU_F_OPERAND, TPU_F_CHAIN
} tpu_field_kind;
typedef struct tpu_field {
  const char *name;      /* null ends a table */
  uint8_t kind;
  uint16_t offset;
  uint8_t count;         /* more than one: a list [a, b, ...] */
} tpu_field;
extern const tpu_field *const tpu_field_table[TPU_FIELD_KINDS];
size_t tpu_field_bytes(const tpu_field *f);

enum { TPU_FLAG_COUNT = 3 };
extern const char *const tpu_flag_names[TPU_FLAG_COUNT]; /* bit k of flags */
/* As tpu_inst_check for a text: *at is the number of the first wrong instruction. */
const char *tpu_insts_check(tn_ctx *ctx, const tpu_machine *m, const tpu_inst *insts, int64_t n, int64_t *at);
#endif
