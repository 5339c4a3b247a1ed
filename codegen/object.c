/* object.c — writes model.o and its company. See object.h. */
#include "codegen/object.h"
#include "codegen/elf.h"
#include "frontend/file.h"
#include <ctype.h>
#include <string.h>

void cg_check_prefix(tn_ctx *ctx, const char *prefix) {
  size_t n = prefix ? strlen(prefix) : 0;
  bool ok = n > 0 && n <= 64 && (isalpha((unsigned char)prefix[0]) || prefix[0] == '_');
  for (size_t i = 0; ok && i < n; i++) ok = isalnum((unsigned char)prefix[i]) || prefix[i] == '_';
  if (!ok)
    ir_fail(ctx, TN_EUSAGE, "prefix '%s' is not a C identifier of at most 64 characters", prefix ? fe_show(ctx, prefix, n) : "");
}

cg_weights_mode cg_weights_mode_parse(tn_ctx *ctx, const char *word) {
  if (strcmp(word, "embed") == 0) return CG_WEIGHTS_EMBED;
  if (strcmp(word, "file") == 0) return CG_WEIGHTS_FILE;
  if (strcmp(word, "pointer") == 0) return CG_WEIGHTS_POINTER;
  ir_fail(ctx, TN_EUSAGE, "weights are 'embed', 'file' or 'pointer', not '%s'", fe_show(ctx, word, strlen(word)));
}

static void to_writer(void *user, const void *data, size_t n) { fe_write(user, data, n); }

/* "dir/model.o" gives "dir/model.weights". */
static const char *weights_path_of(tn_ctx *ctx, const char *path) {
  size_t n = strlen(path);
  if (n > 2 && strcmp(path + n - 2, ".o") == 0) n -= 2;
  return ir_format(ctx, "%.*s.weights", (int)n, path);
}

/* A local symbol that a profiler shows: prefix and kernel name, with what C would not take as '_'. */
static const char *shown_name(tn_ctx *ctx, const char *prefix, int i, const char *name) {
  char *s = ir_format(ctx, "%s_k%d_%.80s", prefix, i, name ? name : "");
  for (char *c = s; *c; c++)
    if (!isalnum((unsigned char)*c)) *c = '_';
  return s;
}

static void add_input(cg_elf_input *in, int *n, const cg_object *o, const char *what) {
  in[(*n)++] = (cg_elf_input){.bytes = o->bytes, .size = o->size, .what = what};
}

struct cg_object_files {
  const ir_program *p;
  cg_object_options o;
  fe_writer *object, *weights, *header; /* weights, header: null without */
};

cg_object_files *cg_object_begin(tn_ctx *ctx, const ir_program *p, const cg_object_options *o) {
  cg_object_files *f = IR_NEW(ctx, cg_object_files);
  *f = (cg_object_files){.p = p, .o = *o};
  cg_check_prefix(ctx, o->prefix);
  if (o->weights == CG_WEIGHTS_FILE && !o->weights_path) f->o.weights_path = weights_path_of(ctx, o->path);
  f->object = fe_write_begin_product(ctx, o->path);
  if (o->weights == CG_WEIGHTS_FILE && cg_blob_bytes(p) > 0) f->weights = fe_write_begin_product(ctx, f->o.weights_path);
  if (o->header) f->header = fe_write_begin_product(ctx, o->header);
  return f;
}

fe_writer *cg_object_weights(const cg_object_files *f, int64_t *at) {
  bool embed = f->o.weights == CG_WEIGHTS_EMBED && cg_blob_bytes(f->p) > 0;
  *at = embed ? CG_ELF_BLOB_AT : 0;
  return embed ? f->object : f->weights;
}

void cg_object_end(tn_ctx *ctx, cg_object_files *f, const cg_build *build, const void *blob) {
  const ir_program *p = f->p;
  cg_object_options o = f->o;
  int64_t blob_bytes = cg_blob_bytes(p);
  bool pack = o.weights == CG_WEIGHTS_POINTER;
  bool embed = o.weights == CG_WEIGHTS_EMBED && blob_bytes > 0;
  if (!pack && blob_bytes > 0 && !blob) ir_bug(ctx, "no packed weights to write");

  bool init = p->state_bytes > 0;
  const char *run = ir_format(ctx, "%s_run", o.prefix), *packer = ir_format(ctx, "%s_pack", o.prefix), *starter = ir_format(ctx, "%s_init", o.prefix);
  cg_entry_options eo = {.run = o.cuda ? NULL : run, .pack = pack ? packer : NULL, .init = init ? starter : NULL};
  bool entry = !o.cuda || pack || init, walked = o.cuda && o.cuda->walked;
  if (build->target->nisa > 0 && entry) eo.isa = ir_format(ctx, "%s_missing_isa", o.prefix);
  if (embed) eo.weights = ir_format(ctx, "%s_weights", o.prefix);
  if (walked) {
    eo.walk = ir_format(ctx, "%s_walk", o.prefix);
    eo.number = ir_format(ctx, "%s_number", o.prefix);
    eo.nnumbers = o.cuda->nnumbers;
    eo.numbers = o.cuda->numbers;
  }

  cg_elf_input *in = IR_NEW_ARRAY(ctx, cg_elf_input, build->nparts + 4);
  int n = 0;
  if (entry || walked) add_input(in, &n, cg_compile_entry(ctx, build->target, p, build->infos, &eo), "the entry");
  if (o.cuda) {
    add_input(in, &n, cu_compile_entry(ctx, build->target, o.prefix, &eo, o.cuda), "the GPU's entry");
    add_input(in, &n, cu_launcher(ctx, build->target), "the launcher");
  }
  cg_elf_name *names = IR_NEW_ARRAY(ctx, cg_elf_name, build->nparts + 1);
  for (int i = 0; i < build->nparts; i++) {
    const cg_part *k = &build->parts[i];
    names[i] = (cg_elf_name){k->symbol, shown_name(ctx, o.prefix, i, k->name)};
    if (k->bytes) in[n++] = (cg_elf_input){.bytes = k->bytes, .size = k->size, .what = ir_format(ctx, "kernel '%s'", k->name)};
  }
  const char *publics[5] = {run};
  int npublic = 1;
  if (pack) publics[npublic++] = packer;
  if (init) publics[npublic++] = starter;
  if (o.cuda) {
    publics[npublic++] = ir_format(ctx, "%s_close", o.prefix);
    publics[npublic++] = ir_format(ctx, "%s_error", o.prefix);
  }
  cg_elf_job job = {.ninputs = n, .inputs = in, .npublic = npublic, .publics = publics, .nnames = build->nparts, .names = names,
                    .blob_symbol = eo.weights, .blob = blob, .blob_bytes = (uint64_t)blob_bytes};
  /* all or nothing: the files take their names once each has been written */
  cg_elf_write(ctx, &job, to_writer, f->object);
  if (f->weights) fe_write(f->weights, blob, (size_t)blob_bytes);
  if (f->header) {
    const char *text = cg_header_text(ctx, p, build, &o);
    fe_write(f->header, text, strlen(text));
  }
  fe_write_settle(f->object);
  if (f->weights) fe_write_settle(f->weights);
  if (f->header) fe_write_settle(f->header);
  fe_write_end(f->object);
  if (f->weights) fe_write_end(f->weights);
  if (f->header) fe_write_end(f->header);
}
