/* elf.c — the ELF64 merger. See elf.h.
 *
 * Passes, each of which reads what the former left:
 *   read_input   headers checked, section and symbol tables found
 *   place        each kept input section becomes a piece of an output section
 *   name_symbols global names → one definition each; the output symbol table
 *   relocate     relocation entries rewritten: symbol index, offset, addend
 *   layout       file offsets
 *   emit         bytes, front to back
 *
 * A relocation needs no knowledge of its type: both machines use RELA, where moving a
 * piece inside a section adds to the offset of its own relocations, and to the addend of
 * those that name its section symbol.
 */
#include "codegen/elf.h"
#include <elf.h>
#include <string.h>

#ifndef SHT_LLVM_ADDRSIG
#define SHT_LLVM_ADDRSIG 0x6fff4c03
#endif
#define LARGE_BLOB ((uint64_t)1 << 30)
#define X86_64_LARGE_SECTION 0x10000000u /* SHF_X86_64_LARGE of the psABI */
#define BLOB_ALIGN 64

typedef struct piece {
  int input;
  uint32_t section;
  uint64_t offset; /* in the output section */
} piece;

typedef struct out_section {
  const char *name;
  uint32_t type;
  uint64_t flags, align, entsize, size, file_at;
  int npieces;
  piece *pieces;
  uint64_t nrela, rela_cap, rela_at;
  Elf64_Rela *rela;
  int rela_header; /* index of its relocation section, 0: none */
} out_section;

typedef struct input {
  const cg_elf_input *in;
  const uint8_t *bytes;
  uint64_t size;
  uint32_t nsections;
  Elf64_Shdr *sections;
  const char *names; /* section names */
  uint64_t names_size;
  uint32_t symtab;   /* section index, 0: none */
  uint32_t nsymbols;
  Elf64_Sym *symbols;
  const char *strings;
  uint64_t strings_size;
  int *out;          /* per section: output section, -1 dropped */
  uint64_t *moved;   /* per section: offset inside it */
  uint32_t *symbol;  /* per symbol: index in the output */
} input;

typedef struct global {
  const char *name, *show; /* show: the name to write it under; null: its own */
  int input; /* of the definition; -1 undefined */
  uint32_t symbol;
  bool weak, public, blob;
  uint32_t out;
} global;

typedef struct merge {
  tn_ctx *ctx;
  const cg_elf_job *job;
  int ninputs;
  input *inputs;
  uint16_t machine;
  uint32_t flags;
  int nsections;
  out_section *sections; /* [i] is section i + 1 of the file */
  int nglobals;
  global *globals;
  int *table; /* hash of names: index in globals + 1 */
  uint32_t table_mask;
  uint32_t nsymbols, nlocal;
  Elf64_Sym *symbols;
  ir_text strings, names; /* .strtab, .shstrtab */
  /* the sink */
  void (*write)(void *user, const void *data, size_t n);
  void *user;
  uint64_t at;
} merge;

/* ------------------------------------------------------------- reading ---- */

static IR_NORETURN void damaged(merge *m, const input *in, const char *why) {
  ir_fail(m->ctx, TN_EINTERNAL, "object bytes of %s: %s", in->in->what ? in->in->what : "an input", why);
}

/* [at, at + n) of the input's bytes. */
static const uint8_t *span(merge *m, const input *in, uint64_t at, uint64_t n) {
  if (at > in->size || n > in->size - at) damaged(m, in, "a table reaches beyond the end");
  return in->bytes + at;
}

static const char *string_at(merge *m, const input *in, const char *table, uint64_t size, uint64_t at) {
  if (at >= size) damaged(m, in, "a name lies outside its table");
  return table + at;
}

static const char *section_name(merge *m, const input *in, uint32_t i) {
  return string_at(m, in, in->names, in->names_size, in->sections[i].sh_name);
}

/* A string table: must end with a zero byte. */
static const char *string_table(merge *m, const input *in, uint32_t i, uint64_t *size) {
  if (i == 0 || i >= in->nsections || in->sections[i].sh_type != SHT_STRTAB) damaged(m, in, "no string table");
  const Elf64_Shdr *s = &in->sections[i];
  const char *p = (const char *)span(m, in, s->sh_offset, s->sh_size);
  if (s->sh_size == 0 || p[s->sh_size - 1] != 0) damaged(m, in, "a string table has no end");
  *size = s->sh_size;
  return p;
}

static void read_input(merge *m, input *in) {
  Elf64_Ehdr h;
  if (in->size < sizeof h) damaged(m, in, "too short");
  memcpy(&h, in->bytes, sizeof h);
  if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0) damaged(m, in, "not ELF");
  if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_ident[EI_DATA] != ELFDATA2LSB || h.e_type != ET_REL)
    damaged(m, in, "not a little-endian relocatable ELF64 file");
  if (h.e_machine != EM_X86_64 && h.e_machine != EM_AARCH64) damaged(m, in, "neither x86-64 nor AArch64");
  if (m->machine == 0) m->machine = h.e_machine, m->flags = h.e_flags;
  if (h.e_machine != m->machine) damaged(m, in, "of another machine than the first");
  if (h.e_shentsize != sizeof(Elf64_Shdr) || h.e_shnum == 0) damaged(m, in, "unexpected section headers");
  in->nsections = h.e_shnum;
  in->sections = IR_NEW_ARRAY(m->ctx, Elf64_Shdr, in->nsections);
  memcpy(in->sections, span(m, in, h.e_shoff, (uint64_t)in->nsections * sizeof(Elf64_Shdr)),
         in->nsections * sizeof(Elf64_Shdr));
  in->names = string_table(m, in, h.e_shstrndx, &in->names_size);
  for (uint32_t i = 1; i < in->nsections; i++) {
    const Elf64_Shdr *s = &in->sections[i];
    if (s->sh_type != SHT_NOBITS) span(m, in, s->sh_offset, s->sh_size);
    if (s->sh_addralign & (s->sh_addralign - 1)) damaged(m, in, "an alignment is no power of two");
    if (s->sh_size > (uint64_t)1 << 48 || s->sh_addralign > (uint64_t)1 << 20) damaged(m, in, "an absurd section size");
    if (s->sh_type != SHT_SYMTAB) continue;
    if (in->symtab) damaged(m, in, "two symbol tables");
    if (s->sh_entsize != sizeof(Elf64_Sym) || s->sh_size / sizeof(Elf64_Sym) > UINT32_MAX) damaged(m, in, "a strange symbol table");
    in->symtab = i;
    in->nsymbols = (uint32_t)(s->sh_size / sizeof(Elf64_Sym));
    in->symbols = IR_NEW_ARRAY(m->ctx, Elf64_Sym, in->nsymbols);
    if (in->nsymbols) memcpy(in->symbols, in->bytes + s->sh_offset, in->nsymbols * sizeof(Elf64_Sym));
    in->strings = string_table(m, in, s->sh_link, &in->strings_size);
  }
  in->out = IR_NEW_ARRAY(m->ctx, int, in->nsections);
  in->moved = IR_NEW_ARRAY(m->ctx, uint64_t, in->nsections);
  in->symbol = IR_NEW_ARRAY(m->ctx, uint32_t, in->nsymbols ? in->nsymbols : 1);
}

/* ------------------------------------------------------------ sections ---- */

static int new_section(merge *m, const char *name, uint32_t type, uint64_t flags, uint64_t align) {
  out_section s = {.name = name, .type = type, .flags = flags, .align = align ? align : 1};
  IR_PUSH(m->ctx, m->sections, m->nsections, s);
  return m->nsections - 1;
}

static bool dropped(const char *name, uint32_t type) {
  return type == SHT_NULL || type == SHT_SYMTAB || type == SHT_STRTAB || type == SHT_RELA || type == SHT_LLVM_ADDRSIG ||
         strcmp(name, ".note.GNU-stack") == 0 || strcmp(name, ".comment") == 0 ||
         strcmp(name, ".note.gnu.property") == 0 || strncmp(name, ".llvm", 5) == 0;
}

/* Merge flags go: the linker then never looks into the pieces, so that nothing depends on how
 * it adjusts addends into merged constants. It costs a few duplicate constants. */
static void place(merge *m, int index) {
  input *in = &m->inputs[index];
  for (uint32_t i = 0; i < in->nsections; i++) {
    Elf64_Shdr *s = &in->sections[i];
    const char *name = section_name(m, in, i);
    in->out[i] = -1;
    if (dropped(name, s->sh_type)) continue;
    if (s->sh_type == SHT_GROUP || s->sh_type == SHT_REL || s->sh_type == SHT_SYMTAB_SHNDX)
      damaged(m, in, ir_format(m->ctx, "section '%s' has a type (%u) that is not merged", name, s->sh_type));
    uint64_t flags = s->sh_flags & ~(uint64_t)(SHF_MERGE | SHF_STRINGS);
    if (flags & (SHF_LINK_ORDER | SHF_GROUP | SHF_COMPRESSED | SHF_TLS))
      damaged(m, in, ir_format(m->ctx, "section '%s' has flags (0x%llx) that are not merged", name, (unsigned long long)flags));
    int o = 0;
    while (o < m->nsections && !(m->sections[o].type == s->sh_type && m->sections[o].flags == flags &&
                                 strcmp(m->sections[o].name, name) == 0))
      o++;
    if (o == m->nsections) o = new_section(m, name, s->sh_type, flags, 1);
    out_section *out = &m->sections[o];
    uint64_t align = s->sh_addralign ? s->sh_addralign : 1;
    if (align > out->align) out->align = align;
    out->size = (out->size + align - 1) & ~(align - 1);
    piece p = {.input = index, .section = i, .offset = out->size};
    IR_PUSH(m->ctx, out->pieces, out->npieces, p);
    in->out[i] = o;
    in->moved[i] = out->size;
    out->size += s->sh_size;
  }
}

/* ------------------------------------------------------------- symbols ---- */

static uint32_t add_symbol(merge *m, const char *name, Elf64_Sym s) {
  s.st_name = 0;
  if (name && *name) {
    s.st_name = (Elf64_Word)m->strings.n;
    ir_put_bytes(&m->strings, name, strlen(name) + 1);
  }
  IR_PUSH(m->ctx, m->symbols, m->nsymbols, s);
  return m->nsymbols - 1;
}

static global *find_global(merge *m, const char *name) {
  uint32_t i = (uint32_t)ir_hash_bytes(name, strlen(name), 0) & m->table_mask;
  for (; m->table[i]; i = (i + 1) & m->table_mask)
    if (strcmp(m->globals[m->table[i] - 1].name, name) == 0) return &m->globals[m->table[i] - 1];
  global g = {.name = name, .input = -1};
  m->globals[m->nglobals] = g;
  m->table[i] = ++m->nglobals;
  return &m->globals[m->nglobals - 1];
}

static const char *symbol_name(merge *m, const input *in, uint32_t i) {
  return string_at(m, in, in->strings, in->strings_size, in->symbols[i].st_name);
}

static bool is_section_symbol(const Elf64_Sym *s) { return ELF64_ST_TYPE(s->st_info) == STT_SECTION; }

/* One definition per global name; room for all names is made first so that pointers stay. */
static void resolve(merge *m) {
  uint64_t count = 2 + (uint64_t)m->job->npublic + (uint64_t)m->job->nnames;
  for (int k = 0; k < m->ninputs; k++) count += m->inputs[k].nsymbols;
  uint64_t slots = 16;
  while (slots < 2 * count) slots *= 2;
  m->table = IR_NEW_ARRAY(m->ctx, int, slots);
  m->table_mask = (uint32_t)(slots - 1);
  m->globals = IR_NEW_ARRAY(m->ctx, global, count);
  for (int k = 0; k < m->job->npublic; k++) find_global(m, m->job->publics[k])->public = true;
  if (m->job->blob_symbol) find_global(m, m->job->blob_symbol)->blob = true;
  for (int k = 0; k < m->job->nnames; k++) find_global(m, m->job->names[k].symbol)->show = m->job->names[k].show;
  for (int k = 0; k < m->ninputs; k++) {
    input *in = &m->inputs[k];
    for (uint32_t i = 1; i < in->nsymbols; i++) {
      const Elf64_Sym *s = &in->symbols[i];
      int bind = ELF64_ST_BIND(s->st_info);
      if (bind == STB_LOCAL) continue;
      const char *name = symbol_name(m, in, i);
      if (s->st_shndx == SHN_COMMON) damaged(m, in, ir_format(m->ctx, "common symbol '%s'", name));
      global *g = find_global(m, name);
      if (s->st_shndx == SHN_UNDEF) continue;
      bool weak = bind == STB_WEAK;
      if (g->blob || (g->input >= 0 && !g->weak && !weak))
        damaged(m, in, ir_format(m->ctx, "symbol '%s' is defined twice", name));
      if (g->input >= 0 && (weak || !g->weak)) continue;
      g->input = k, g->symbol = i, g->weak = weak;
    }
  }
}

/* The input's symbol i as it reads in the output, its section mapped. */
static Elf64_Sym moved_symbol(merge *m, const input *in, uint32_t i) {
  Elf64_Sym s = in->symbols[i];
  if (s.st_shndx == SHN_ABS) return s;
  if (s.st_shndx >= in->nsections) damaged(m, in, "a symbol of no section");
  if (in->out[s.st_shndx] < 0) { /* of a dropped section: nothing may use it */
    s.st_shndx = SHN_ABS;
    return s;
  }
  s.st_value += in->moved[s.st_shndx];
  s.st_shndx = (Elf64_Half)(in->out[s.st_shndx] + 1);
  return s;
}

static void name_symbols(merge *m, int blob_section) {
  ir_put_bytes(&m->strings, "", 1);
  add_symbol(m, NULL, (Elf64_Sym){0});
  for (int o = 0; o < m->nsections; o++)
    add_symbol(m, NULL, (Elf64_Sym){.st_info = ELF64_ST_INFO(STB_LOCAL, STT_SECTION), .st_shndx = (Elf64_Half)(o + 1)});
  for (int k = 0; k < m->ninputs; k++) {
    input *in = &m->inputs[k];
    for (uint32_t i = 1; i < in->nsymbols; i++) {
      const Elf64_Sym *s = &in->symbols[i];
      if (is_section_symbol(s)) {
        if (s->st_shndx == 0 || s->st_shndx >= in->nsections) damaged(m, in, "a section symbol of no section");
        in->symbol[i] = in->out[s->st_shndx] < 0 ? 0 : (uint32_t)in->out[s->st_shndx] + 1;
      } else if (ELF64_ST_BIND(s->st_info) == STB_LOCAL && ELF64_ST_TYPE(s->st_info) != STT_FILE) {
        if (s->st_shndx == SHN_UNDEF || (s->st_shndx < in->nsections && in->out[s->st_shndx] < 0)) continue;
        in->symbol[i] = add_symbol(m, symbol_name(m, in, i), moved_symbol(m, in, i));
      }
    }
  }
  for (int g = 0; g < m->nglobals; g++) { /* the ones that become local */
    global *d = &m->globals[g];
    if (d->blob) {
      Elf64_Sym s = {.st_info = ELF64_ST_INFO(STB_LOCAL, STT_OBJECT), .st_shndx = (Elf64_Half)(blob_section + 1),
                     .st_size = m->job->blob_bytes};
      d->out = add_symbol(m, d->name, s);
    } else if (d->input >= 0 && !d->public) {
      const input *in = &m->inputs[d->input];
      Elf64_Sym s = moved_symbol(m, in, d->symbol);
      s.st_info = ELF64_ST_INFO(STB_LOCAL, ELF64_ST_TYPE(s.st_info));
      s.st_other = STV_DEFAULT;
      d->out = add_symbol(m, d->show ? d->show : d->name, s);
    }
  }
  m->nlocal = m->nsymbols;
  for (int g = 0; g < m->nglobals; g++) { /* public and undefined ones */
    global *d = &m->globals[g];
    if (d->blob || (d->input >= 0 && !d->public)) continue;
    if (d->input < 0) {
      if (d->public) ir_bug(m->ctx, "public symbol '%s' is defined nowhere", d->name);
      if (strcmp(d->name, "_GLOBAL_OFFSET_TABLE_") != 0 && !cg_elf_may_need(d->name))
        ir_fail(m->ctx, TN_EINTERNAL, "the object would need '%s', which is neither a memory function nor of libm", d->name);
      d->out = add_symbol(m, d->name, (Elf64_Sym){.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE)});
    } else {
      Elf64_Sym s = moved_symbol(m, &m->inputs[d->input], d->symbol);
      s.st_info = ELF64_ST_INFO(STB_GLOBAL, ELF64_ST_TYPE(s.st_info));
      d->out = add_symbol(m, d->name, s);
    }
  }
  for (int k = 0; k < m->ninputs; k++) {
    input *in = &m->inputs[k];
    for (uint32_t i = 1; i < in->nsymbols; i++)
      if (ELF64_ST_BIND(in->symbols[i].st_info) != STB_LOCAL) in->symbol[i] = find_global(m, symbol_name(m, in, i))->out;
  }
}

/* Names an object may need: memory functions and the C99 functions of libm, each also
 * with an f. */
bool cg_elf_may_need(const char *name) {
  static const char *const memory[] = {"memcpy", "memset", "memmove"};
  static const char *const libm[] = {
      "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh",
      "erf", "erfc", "exp", "exp2", "expm1", "fabs", "fdim", "floor", "fma", "fmax", "fmin", "fmod", "frexp",
      "hypot", "ldexp", "lgamma", "log", "log10", "log1p", "log2", "modf", "nearbyint", "pow", "remainder",
      "rint", "round", "roundeven", "scalbn", "sin", "sinh", "sqrt", "tan", "tanh", "tgamma", "trunc"};
  for (int i = 0; i < IR_COUNT(memory); i++)
    if (strcmp(name, memory[i]) == 0) return true;
  for (int i = 0; i < IR_COUNT(libm); i++) {
    size_t n = strlen(libm[i]);
    if (strncmp(name, libm[i], n) == 0 && (name[n] == 0 || (name[n] == 'f' && name[n + 1] == 0))) return true;
  }
  return false;
}

/* --------------------------------------------------------- relocations ---- */

static void relocate(merge *m, int index) {
  input *in = &m->inputs[index];
  for (uint32_t i = 1; i < in->nsections; i++) {
    const Elf64_Shdr *r = &in->sections[i];
    if (r->sh_type != SHT_RELA) continue;
    uint32_t target = r->sh_info;
    if (target == 0 || target >= in->nsections) damaged(m, in, "relocations of no section");
    if (in->out[target] < 0) continue;
    if (r->sh_entsize != sizeof(Elf64_Rela) || r->sh_size % sizeof(Elf64_Rela)) damaged(m, in, "strange relocations");
    if (r->sh_link != in->symtab) damaged(m, in, "relocations of another symbol table");
    out_section *out = &m->sections[in->out[target]];
    uint64_t n = r->sh_size / sizeof(Elf64_Rela), had = out->nrela;
    if (had + n > out->rela_cap) {
      out->rela_cap = 2 * (had + n);
      out->rela = ir_grow(m->ctx, out->rela, had, out->rela_cap, sizeof(Elf64_Rela));
    }
    out->nrela += n;
    if (n) memcpy(out->rela + had, in->bytes + r->sh_offset, n * sizeof(Elf64_Rela));
    for (Elf64_Rela *e = out->rela + had; e < out->rela + out->nrela; e++) {
      uint64_t symbol = ELF64_R_SYM(e->r_info), type = ELF64_R_TYPE(e->r_info);
      if (symbol >= in->nsymbols || e->r_offset >= in->sections[target].sh_size) damaged(m, in, "a relocation out of bounds");
      const Elf64_Sym *s = &in->symbols[symbol];
      if (symbol && in->symbol[symbol] == 0) damaged(m, in, "a relocation against a dropped section");
      if (symbol && is_section_symbol(s)) e->r_addend += (int64_t)in->moved[s->st_shndx];
      e->r_offset += in->moved[target];
      e->r_info = ELF64_R_INFO((uint64_t)in->symbol[symbol], type);
    }
  }
}

/* ------------------------------------------------------------- writing ---- */

static void put(merge *m, const void *data, uint64_t n) {
  if (n == 0) return;
  m->write(m->user, data, (size_t)n);
  m->at += n;
}

/* Zeros, or x86-64 no-ops between functions, up to file offset `to`. */
static void pad(merge *m, uint64_t to, uint8_t with) {
  uint8_t fill[256];
  memset(fill, with, sizeof fill);
  ir_assert(m->ctx, to >= m->at);
  while (m->at < to) put(m, fill, to - m->at < sizeof fill ? to - m->at : sizeof fill);
}

static void emit_section(merge *m, const out_section *s, bool is_blob) {
  if (s->type == SHT_NOBITS) return;
  pad(m, s->file_at, 0);
  uint8_t fill = (s->flags & SHF_EXECINSTR) && m->machine == EM_X86_64 ? 0x90 : 0;
  for (int i = 0; i < s->npieces; i++) {
    const input *in = &m->inputs[s->pieces[i].input];
    const Elf64_Shdr *h = &in->sections[s->pieces[i].section];
    pad(m, s->file_at + s->pieces[i].offset, fill);
    put(m, in->bytes + h->sh_offset, h->sh_size);
  }
  if (is_blob) put(m, m->job->blob, m->job->blob_bytes);
  ir_assert(m->ctx, m->at == s->file_at + s->size);
}

static uint32_t name_of_section(merge *m, const char *prefix, const char *name) {
  uint32_t at = (uint32_t)m->names.n;
  ir_put_bytes(&m->names, prefix, strlen(prefix));
  ir_put_bytes(&m->names, name, strlen(name) + 1);
  return at;
}

static void emit(merge *m, int blob_section) {
  int nrela = 0;
  for (int o = 0; o < m->nsections; o++)
    if (m->sections[o].nrela) m->sections[o].rela_header = m->nsections + 1 + nrela++;
  int symtab = m->nsections + nrela + 1, count = symtab + 3; /* .symtab .strtab .shstrtab */
  if (count >= SHN_LORESERVE) ir_fail(m->ctx, TN_ERESOURCE, "more than %d sections in one object", SHN_LORESERVE - 1);
  ir_put_bytes(&m->names, "", 1);
  Elf64_Shdr *h = IR_NEW_ARRAY(m->ctx, Elf64_Shdr, count);
  uint64_t at = sizeof(Elf64_Ehdr);
  for (int o = 0; o < m->nsections; o++) {
    out_section *s = &m->sections[o];
    s->file_at = at = o == blob_section ? CG_ELF_BLOB_AT : (at + s->align - 1) & ~(s->align - 1);
    h[o + 1] = (Elf64_Shdr){.sh_name = name_of_section(m, "", s->name), .sh_type = s->type, .sh_flags = s->flags,
                            .sh_offset = at, .sh_size = s->size, .sh_addralign = s->align, .sh_entsize = s->entsize};
    if (s->type != SHT_NOBITS) at += s->size;
  }
  at = (at + 7) & ~(uint64_t)7;
  for (int o = 0; o < m->nsections; o++) {
    out_section *s = &m->sections[o];
    if (!s->nrela) continue;
    s->rela_at = at;
    h[s->rela_header] = (Elf64_Shdr){.sh_name = name_of_section(m, ".rela", s->name), .sh_type = SHT_RELA, .sh_flags = SHF_INFO_LINK,
                                     .sh_offset = at, .sh_size = s->nrela * sizeof(Elf64_Rela), .sh_link = (Elf64_Word)symtab,
                                     .sh_info = (Elf64_Word)(o + 1), .sh_addralign = 8, .sh_entsize = sizeof(Elf64_Rela)};
    at += s->nrela * sizeof(Elf64_Rela);
  }
  h[symtab] = (Elf64_Shdr){.sh_name = name_of_section(m, "", ".symtab"), .sh_type = SHT_SYMTAB, .sh_offset = at,
                           .sh_size = (uint64_t)m->nsymbols * sizeof(Elf64_Sym), .sh_link = (Elf64_Word)(symtab + 1),
                           .sh_info = m->nlocal, .sh_addralign = 8, .sh_entsize = sizeof(Elf64_Sym)};
  at += h[symtab].sh_size;
  h[symtab + 1] = (Elf64_Shdr){.sh_name = name_of_section(m, "", ".strtab"), .sh_type = SHT_STRTAB, .sh_offset = at,
                               .sh_size = m->strings.n, .sh_addralign = 1};
  at += m->strings.n;
  uint32_t own_name = name_of_section(m, "", ".shstrtab");
  h[symtab + 2] = (Elf64_Shdr){.sh_name = own_name, .sh_type = SHT_STRTAB, .sh_offset = at, .sh_size = m->names.n, .sh_addralign = 1};
  at += m->names.n;
  uint64_t headers_at = (at + 7) & ~(uint64_t)7;

  Elf64_Ehdr e = {.e_type = ET_REL, .e_machine = m->machine, .e_version = EV_CURRENT, .e_flags = m->flags, .e_shoff = headers_at,
                  .e_ehsize = sizeof(Elf64_Ehdr), .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = (Elf64_Half)count,
                  .e_shstrndx = (Elf64_Half)(symtab + 2)};
  memcpy(e.e_ident, ELFMAG, SELFMAG);
  e.e_ident[EI_CLASS] = ELFCLASS64, e.e_ident[EI_DATA] = ELFDATA2LSB, e.e_ident[EI_VERSION] = EV_CURRENT;
  put(m, &e, sizeof e);
  for (int o = 0; o < m->nsections; o++) emit_section(m, &m->sections[o], o == blob_section);
  for (int o = 0; o < m->nsections; o++) {
    const out_section *s = &m->sections[o];
    if (!s->nrela) continue;
    pad(m, s->rela_at, 0);
    put(m, s->rela, s->nrela * sizeof(Elf64_Rela));
  }
  pad(m, h[symtab].sh_offset, 0);
  put(m, m->symbols, h[symtab].sh_size);
  put(m, m->strings.s, m->strings.n);
  put(m, m->names.s, m->names.n);
  pad(m, headers_at, 0);
  put(m, h, (uint64_t)count * sizeof(Elf64_Shdr));
}

void cg_elf_write(tn_ctx *ctx, const cg_elf_job *job, void (*write)(void *user, const void *data, size_t n), void *user) {
  merge m = {.ctx = ctx, .job = job, .ninputs = job->ninputs, .strings = {.ctx = ctx}, .names = {.ctx = ctx},
             .write = write, .user = user};
  if (job->ninputs < 1) ir_bug(ctx, "nothing to merge");
  m.inputs = IR_NEW_ARRAY(ctx, input, job->ninputs);
  for (int k = 0; k < m.ninputs; k++) {
    m.inputs[k] = (input){.in = &job->inputs[k], .bytes = job->inputs[k].bytes, .size = job->inputs[k].size};
    read_input(&m, &m.inputs[k]);
  }
  int blob = -1;
  if (job->blob_symbol) { /* first, so that its place does not depend on the code */
    bool large = m.machine == EM_X86_64 && job->blob_bytes >= LARGE_BLOB;
    blob = new_section(&m, ir_format(ctx, "%s.%s", large ? ".lrodata" : ".rodata", job->blob_symbol), SHT_PROGBITS,
                       SHF_ALLOC | (large ? X86_64_LARGE_SECTION : 0), BLOB_ALIGN);
    m.sections[blob].size = job->blob_bytes;
  }
  for (int k = 0; k < m.ninputs; k++) place(&m, k);
  new_section(&m, ".note.GNU-stack", SHT_PROGBITS, 0, 1); /* the stack need not be executable */
  resolve(&m);
  name_symbols(&m, blob);
  for (int k = 0; k < m.ninputs; k++) relocate(&m, k);
  emit(&m, blob);
}
