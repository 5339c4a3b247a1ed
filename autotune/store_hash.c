/* store_hash.c — BLAKE2b (RFC 7693) with a 16-byte digest: the identity of rows.
 *
 * Rows from strangers get merged and a hash decides that two kernels are the same,
 * so it has to be one without known collisions; BLAKE2b is the fastest of those in
 * plain 64-bit C (about 1 µs for a kernel of 1 KB).
 */
#include "autotune/store_internal.h"
#include <math.h>
#include <string.h>

static const uint64_t iv[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};

/* Message word order per round (RFC 7693, 2.7); rounds 10 and 11 repeat 0 and 1. */
static const uint8_t sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static inline uint64_t rotr(uint64_t x, int n) { return x >> n | x << (64 - n); }

static inline uint64_t word(const unsigned char *p) {
  uint64_t w = 0;
  for (int i = 0; i < 8; i++) w |= (uint64_t)p[i] << (8 * i);
  return w;
}

static inline void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y) {
  v[a] += v[b] + x;
  v[d] = rotr(v[d] ^ v[a], 32);
  v[c] += v[d];
  v[b] = rotr(v[b] ^ v[c], 24);
  v[a] += v[b] + y;
  v[d] = rotr(v[d] ^ v[a], 16);
  v[c] += v[d];
  v[b] = rotr(v[b] ^ v[c], 63);
}

static void compress(at_hasher *h, bool last) {
  uint64_t m[16], v[16];
  for (int i = 0; i < 16; i++) m[i] = word(h->block + 8 * i);
  for (int i = 0; i < 8; i++) {
    v[i] = h->h[i];
    v[8 + i] = iv[i];
  }
  v[12] ^= h->bytes;
  if (last) v[14] = ~v[14];
  for (int r = 0; r < 12; r++) {
    const uint8_t *s = sigma[r % 10];
    mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
    mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
    mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
    mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
    mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
    mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
    mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
    mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
  }
  for (int i = 0; i < 8; i++) h->h[i] ^= v[i] ^ v[8 + i];
}

void at_hash_start(at_hasher *h) {
  memcpy(h->h, iv, sizeof iv);
  h->h[0] ^= 0x01010000u ^ (AT_UID / 2); /* no key, digest length */
  h->bytes = 0;
  h->fill = 0;
}

void at_hash_bytes(at_hasher *h, const void *p, size_t n) {
  const unsigned char *s = p;
  while (n) {
    if (h->fill == sizeof h->block) { /* the last block is left to at_hash_end */
      h->bytes += sizeof h->block;
      compress(h, false);
      h->fill = 0;
    }
    size_t take = sizeof h->block - h->fill;
    if (take > n) take = n;
    memcpy(h->block + h->fill, s, take);
    h->fill += take;
    s += take;
    n -= take;
  }
}

void at_hash_int(at_hasher *h, int64_t v) {
  unsigned char b[8];
  for (int i = 0; i < 8; i++) b[i] = (unsigned char)((uint64_t)v >> (8 * i));
  at_hash_bytes(h, b, sizeof b);
}

void at_hash_text(at_hasher *h, const char *s) {
  size_t n = strlen(s);
  at_hash_int(h, (int64_t)n);
  at_hash_bytes(h, s, n);
}

void at_hash_real(at_hasher *h, double v) {
  uint64_t bits = 0x7ff8000000000000u; /* one NaN, one zero: SQL keeps neither sign nor payload */
  v = v == 0 ? 0 : v;
  if (!isnan(v)) memcpy(&bits, &v, sizeof bits);
  at_hash_int(h, (int64_t)bits);
}

void at_hash_end(at_hasher *h, char uid[AT_UID + 1]) {
  h->bytes += h->fill;
  memset(h->block + h->fill, 0, sizeof h->block - h->fill);
  compress(h, true);
  for (int i = 0; i < AT_UID / 2; i++) {
    unsigned byte = (unsigned)(h->h[i / 8] >> (8 * (i % 8))) & 0xff;
    uid[2 * i] = "0123456789abcdef"[byte >> 4];
    uid[2 * i + 1] = "0123456789abcdef"[byte & 15];
  }
  uid[AT_UID] = 0;
}
