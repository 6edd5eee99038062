/*
 * Find registered grams in bytes: the inner loop of grams.py. gram_marks.py does the same by
 * numpy, gives the same answers, and says what shapes, filters and known grams are.
 *
 * marks(width, stride, factor, filters, masks, known, before, data)
 *     -> [(at, begun, number), ...], sorted
 *
 * Nothing is read outside the buffers given, nothing is kept, no memory is taken but for the
 * answer. Built for the limited API of 3.12: one file serves all later versions.
 */
#define Py_LIMITED_API 0x030C0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif
#if defined(__SSE2__) && !defined(NARROW)
#define WIDE __attribute__((target("avx2")))
#endif
#define INLINE static inline __attribute__((always_inline))

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "grams are read little-endian: on this machine numpy does it"
#endif

#define EDITION 2 /* of the arguments: grams.py takes no other */
#define STRIDE_MAX 16
#define WIDTH_MAX 8
#define BEFORE_MAX (STRIDE_MAX + WIDTH_MAX - 2)
#define KNOWN_MAX 16
#define KEPT_SHIFT 24 /* of a product, to its hash; of a known gram too */
#define FIELD_MASK 63
#define EACH_BYTE 0x0101010101010101u
#define PLACE_BITS 10
#define PLACE_MASK ((1u << PLACE_BITS) - 1)
#define SHAPE_SHIFT (2 * PLACE_BITS)
#define SHAPE_MASK 15

/* What a gram is looked up as. Which of them come into question is a set of bits. */
enum { TOKEN, WORD, SHORT, MIXED, SPACED, SHAPES };
#define SET(shape) (1u << (shape))

#define STEP 32  /* bytes of which the kinds are told at once */
#define STEPS 64 /* of a block */
#define FEW 8   /* masks that are looked for all at once */
#define LEAD 16  /* bytes of data before a block that are told too */
#define ASKED_MAX (STEP * STEPS / 4)

typedef struct {
    const uint64_t *words;
    int shift; /* of a product, to its word */
} Filter;

/* Four words, or sixteen masks, at once: whatever the machine makes of it. */
typedef uint64_t Words __attribute__((vector_size(32)));
typedef uint16_t Masks __attribute__((vector_size(32)));

typedef struct {
    Py_ssize_t width, stride;
    uint64_t factor, mask;
    Filter filters[SHAPES];
    Py_buffer words[SHAPES];
    Py_ssize_t words_count;
    unsigned held;        /* the shapes that any gram has */
    const uint8_t *masks; /* what comes into question by where other bytes stand; NULL: all */
    uint8_t others[256];  /* the same without tokens and words */
    unsigned has_others;
    Masks few[FEW]; /* the masks that have any, if they are few */
    unsigned few_count;
    Py_buffer known[KNOWN_MAX];
    Py_ssize_t known_count;
    /* What is looked at: `begun` bytes that stand before, and data. */
    uint8_t start[BEFORE_MAX];
    Py_ssize_t begun, size;
    const uint8_t *data;
    PyObject *found;
} Search;

typedef struct {
    uint64_t product;
    uint32_t offset, shapes;
} Asked;

/* Grams whose words are on their way from memory. */
typedef struct {
    Py_ssize_t place; /* which offsets count from */
    unsigned count;
    Asked asked[ASKED_MAX];
} Batch;

/* Of each byte of a block a bit, in order: what it is. */
typedef struct {
    uint32_t other[STEPS + 2]; /* no letter, no digit, none of +,-./_ */
    uint32_t low[STEPS];       /* a letter, no capital */
    uint32_t spaced[STEPS];    /* a space */
} Kinds;

/* Tell the kinds of `steps` times 32 bytes; which are low and spaces only where `all`. One
   function for each kind of machine, with the same answers. */
typedef void (*Tell)(Kinds *kinds, const uint8_t *bytes, unsigned steps, int all);

static inline int is_low(uint8_t byte)
{
    return (uint8_t)(byte - 'a') < 26;
}

static inline int is_other(uint8_t byte)
{
    return !(is_low(byte | 0x20) || (uint8_t)(byte - '+') < 15 || byte == '_');
}

#ifdef __SSE2__
static inline __m128i within(__m128i bytes, char first, char count)
{
    __m128i from = _mm_sub_epi8(bytes, _mm_set1_epi8(first));
    return _mm_cmpeq_epi8(_mm_min_epu8(from, _mm_set1_epi8((char)(count - 1))), from);
}

static inline uint32_t other_of(__m128i bytes)
{
    __m128i letters = within(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), 'a', 26);
    __m128i signs = within(bytes, '+', 15), line = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('_'));
    return 0xFFFFu & ~(uint32_t)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(letters, signs), line));
}

static void tell_usual(Kinds *kinds, const uint8_t *bytes, unsigned steps, int all)
{
    for (unsigned step = 0; step < steps; step++, bytes += STEP) {
        __m128i first = _mm_loadu_si128((const __m128i *)bytes);
        __m128i second = _mm_loadu_si128((const __m128i *)(bytes + STEP / 2));
        kinds->other[step] = other_of(first) | other_of(second) << 16;
        if (!all)
            continue;
        __m128i space = _mm_set1_epi8(' ');
        kinds->low[step] = (uint32_t)_mm_movemask_epi8(within(first, 'a', 26))
                         | (uint32_t)_mm_movemask_epi8(within(second, 'a', 26)) << 16;
        kinds->spaced[step] = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(first, space))
                            | (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(second, space)) << 16;
    }
}

#ifdef WIDE
WIDE static inline __m256i wide_within(__m256i bytes, char first, char count)
{
    __m256i from = _mm256_sub_epi8(bytes, _mm256_set1_epi8(first));
    return _mm256_cmpeq_epi8(_mm256_min_epu8(from, _mm256_set1_epi8((char)(count - 1))), from);
}

WIDE static void tell_wide(Kinds *kinds, const uint8_t *bytes, unsigned steps, int all)
{
    for (unsigned step = 0; step < steps; step++, bytes += STEP) {
        __m256i each = _mm256_loadu_si256((const __m256i *)bytes);
        __m256i letters = wide_within(_mm256_or_si256(each, _mm256_set1_epi8(0x20)), 'a', 26);
        __m256i signs = wide_within(each, '+', 15);
        __m256i line = _mm256_cmpeq_epi8(each, _mm256_set1_epi8('_'));
        __m256i token = _mm256_or_si256(_mm256_or_si256(letters, signs), line);
        kinds->other[step] = ~(uint32_t)_mm256_movemask_epi8(token);
        if (!all)
            continue;
        __m256i space = _mm256_cmpeq_epi8(each, _mm256_set1_epi8(' '));
        kinds->low[step] = (uint32_t)_mm256_movemask_epi8(wide_within(each, 'a', 26));
        kinds->spaced[step] = (uint32_t)_mm256_movemask_epi8(space);
    }
}
#endif
#else
static void tell_usual(Kinds *kinds, const uint8_t *bytes, unsigned steps, int all)
{
    (void)all;
    for (unsigned step = 0; step < steps; step++, bytes += STEP) {
        uint32_t other = 0, low = 0, spaced = 0;
        for (unsigned each = 0; each < STEP; each++) {
            other |= (uint32_t)is_other(bytes[each]) << each;
            low |= (uint32_t)is_low(bytes[each]) << each;
            spaced |= (uint32_t)(bytes[each] == ' ') << each;
        }
        kinds->other[step] = other, kinds->low[step] = low, kinds->spaced[step] = spaced;
    }
}
#endif

static inline uint64_t bits_from(const uint32_t *bits, size_t at_byte)
{
    uint64_t read;
    memcpy(&read, (const uint8_t *)bits + at_byte, sizeof read);
    return read;
}

static inline unsigned lowest(uint64_t bits) /* of which one is set */
{
    return (unsigned)__builtin_ctzll(bits);
}

static inline unsigned highest(uint32_t bits) /* of which one is set */
{
    return 31 - (unsigned)__builtin_clz(bits);
}

/* Most are told by the first of three bits. */
static inline int passes(const Filter *filter, uint64_t product)
{
    uint64_t word = filter->words[product >> filter->shift];
    return word >> (product >> KEPT_SHIFT & FIELD_MASK) & 1
        && word >> (product >> (KEPT_SHIFT + 6) & FIELD_MASK) & 1
        && word >> (product >> (KEPT_SHIFT + 12) & FIELD_MASK) & 1;
}

/* Append each place that the gram of `product` is known with as one of `shapes`; -1 with an
   exception set. */
static int look_up(Search *search, Py_ssize_t at, uint64_t product, unsigned shapes)
{
    uint64_t hash = product >> KEPT_SHIFT, key = hash << KEPT_SHIFT;
    for (Py_ssize_t number = 0; number < search->known_count; number++) {
        const uint64_t *known = search->known[number].buf;
        size_t count = (size_t)search->known[number].len / sizeof *known, low = 0, high = count;
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            if (known[middle] < key)
                low = middle + 1;
            else
                high = middle;
        }
        for (; low < count && known[low] >> KEPT_SHIFT == hash; low++) {
            if (!(shapes >> (known[low] >> SHAPE_SHIFT & SHAPE_MASK) & 1))
                continue;
            PyObject *mark = Py_BuildValue("(nII)", at,
                (unsigned)(known[low] >> PLACE_BITS) & PLACE_MASK,
                (unsigned)known[low] & PLACE_MASK);
            int failed = mark == NULL || PyList_Append(search->found, mark);
            Py_XDECREF(mark);
            if (failed)
                return -1;
        }
    }
    return 0;
}

static inline int look(Search *search, Py_ssize_t at, uint64_t product, unsigned shapes)
{
    for (unsigned left = shapes; left; left &= left - 1)
        if (passes(&search->filters[lowest(left)], product))
            return look_up(search, at, product, shapes);
    return 0;
}

static inline uint64_t gram_at(const Search *search, Py_ssize_t place)
{
    uint64_t gram;
    memcpy(&gram, search->data + place, sizeof gram);
    return gram;
}

/* Note a gram that is looked up, if it is to be as anything. */
static inline void note(Batch *batch, Py_ssize_t offset, unsigned shapes)
{
    Asked *asked = &batch->asked[batch->count];
    asked->offset = (uint32_t)offset;
    asked->shapes = shapes;
    batch->count += shapes != 0;
}

/* Hash what was noted, and send for the words. */
static void send_for(const Search *search, Batch *batch)
{
    for (unsigned each = 0; each < batch->count; each++) {
        Asked *asked = &batch->asked[each];
        uint64_t gram = gram_at(search, batch->place + asked->offset) & search->mask;
        asked->product = gram * search->factor;
        for (unsigned left = asked->shapes; left; left &= left - 1) {
            const Filter *filter = &search->filters[lowest(left)];
            __builtin_prefetch(filter->words + (asked->product >> filter->shift));
        }
    }
}

static int ask(Search *search, const Batch *batch)
{
    for (unsigned each = 0; each < batch->count; each++) {
        const Asked *one = &batch->asked[each];
        if (look(search, batch->place + one->offset, one->product, one->shapes))
            return -1;
    }
    return 0;
}

static inline uint8_t byte_at(const Search *search, Py_ssize_t place)
{
    return place < 0 ? search->start[search->begun + place] : search->data[place];
}

/* Which shapes come into question for the gram at `place`: what gram_marks.py says in words. */
static unsigned shapes_at(const Search *search, Py_ssize_t place)
{
    unsigned other = 0, spaced = 0, is_word = 1;
    if (search->masks == NULL)
        return SET(TOKEN) & search->held;
    for (Py_ssize_t each = 0; each < search->width; each++) {
        uint8_t byte = byte_at(search, place + each);
        other |= (unsigned)is_other(byte) << each;
        spaced |= byte == ' ';
        is_word &= (unsigned)is_low(byte);
    }
    if (other)
        return search->masks[other] & (spaced ? SET(SPACED) : SET(MIXED));
    Py_ssize_t window = search->width + search->stride - 1, run = search->width;
    for (Py_ssize_t at = place - 1; run < window && at >= -search->begun; at--, run++)
        if (is_other(byte_at(search, at)))
            break;
    for (Py_ssize_t at = place + search->width; run < window && at < search->size; at++, run++)
        if (is_other(byte_at(search, at)))
            break;
    return (SET(SHORT) | (run < window ? 0 : is_word ? SET(WORD) : SET(TOKEN))) & search->held;
}

static int look_at_one(Search *search, Py_ssize_t place)
{
    unsigned shapes = shapes_at(search, place);
    uint64_t gram = 0;
    for (Py_ssize_t each = 0; shapes && each < search->width; each++)
        gram |= (uint64_t)byte_at(search, place + each) << (8 * each);
    return shapes ? look(search, place, gram * search->factor, shapes) : 0;
}

/* Take all grams of a block, where shapes are not asked for. */
static int take_all(Search *search, Batch *batch)
{
    if (search->size - batch->place < WIDTH_MAX)
        return 0;
    Py_ssize_t count = (search->size - WIDTH_MAX - batch->place) / search->stride + 1;
    if (count > ASKED_MAX / 4)
        count = ASKED_MAX / 4;
    for (Py_ssize_t each = 0; each < count; each++)
        note(batch, each * search->stride, SET(TOKEN));
    return (int)count;
}

/* Whether one of eight bytes is a space: exact, but not for which. */
static inline int is_spaced(uint64_t gram)
{
    uint64_t other = gram ^ EACH_BYTE * ' ';
    return ((other - EACH_BYTE) & ~other & EACH_BYTE << 7) != 0;
}

/* Whether eight bytes of ASCII are all small letters: no sum carries into the next byte. */
static inline unsigned is_word(uint64_t gram)
{
    uint64_t from_a = gram + EACH_BYTE * (0x80 - 'a'), past_z = gram + EACH_BYTE * (0x7F - 'z');
    return (from_a & ~past_z & EACH_BYTE << 7) == EACH_BYTE << 7;
}

/* Tell which of 32 grams, one in sixteen bytes, are in a window of 23 token bytes. A word of bits
   tells of two: the even ones are in the lower half of the answer, the odd in the upper. */
INLINE uint32_t whole_ones(const uint32_t *other)
{
    const Words both = {0x100010000u, 0x100010000u, 0x100010000u, 0x100010000u};
    const Words lanes = {0, 1, 2, 3};
    Words found = {0, 0, 0, 0};
    for (unsigned turn = 0; turn < 4; turn++) {
        const uint32_t *at = other + 4 * turn;
        Words window = {bits_from(at, 0), bits_from(at, 4), bits_from(at, 8), bits_from(at, 12)};
        window = ~window & ~window >> 1;
        window &= window >> 2;
        window &= window >> 4;
        window &= window >> 8;
        window &= window >> 7; /* 23 of them begin there */
        window |= window << 1;
        window |= window << 2;
        window |= window << 4;
        window |= window << 8; /* so they begin there, or at most fifteen before */
        found |= (window & both) >> 16 << (lanes + 4 * turn);
    }
    return (uint32_t)(found[0] | found[1] | found[2] | found[3]);
}

INLINE void note_whole(const Search *search, Batch *batch, const Kinds *kinds, unsigned count)
{
    for (unsigned first = 0; first < count; first += 32) {
        for (uint32_t left = whole_ones(kinds->other + first / 2); left; left &= left - 1) {
            unsigned bit = lowest(left), each = first + 2 * (bit & 15) + (bit >> 4);
            Py_ssize_t offset = 16 * (Py_ssize_t)each;
            unsigned shape = SET(TOKEN) << is_word(gram_at(search, batch->place + offset));
            note(batch, offset, each < count ? shape & search->held : 0);
        }
    }
}

static inline void note_other(const Search *search, Batch *batch, unsigned mask, unsigned each)
{
    Py_ssize_t offset = 16 * (Py_ssize_t)each;
    unsigned spaced = (unsigned)is_spaced(gram_at(search, batch->place + offset));
    note(batch, offset, search->others[mask] & ~(spaced ? SET(MIXED) : SET(SPACED)));
}

/* Whether one of sixteen masks is among the few that there are. */
INLINE int is_any_few(const Search *search, const uint8_t *masks)
{
    Masks each, found = {0};
    memcpy(&each, masks, sizeof each);
    each &= 0xFF;
    for (unsigned number = 0; number < search->few_count; number++)
        found |= (Masks)(each == search->few[number]);
    Words any;
    memcpy(&any, &found, sizeof any);
    return (any[0] | any[1] | any[2] | any[3]) != 0;
}

/* Tell the kinds of a block and of what is just before it; return of how many steps, 0 where
   fewer than `least` are left. */
INLINE unsigned tell_block(Kinds *kinds, const Search *search, const Batch *batch, Tell tell,
                           Py_ssize_t least, int all)
{
    Py_ssize_t steps = (search->size - batch->place + LEAD) / STEP;
    if (steps < least)
        return 0;
    if (steps > STEPS)
        steps = STEPS;
    tell(kinds, search->data + batch->place - LEAD, (unsigned)steps, all);
    return (unsigned)steps;
}

/* Take grams of eight bytes, one in sixteen. */
INLINE int take_long_by(Search *search, Batch *batch, Tell tell)
{
    Kinds kinds;
    unsigned steps = tell_block(&kinds, search, batch, tell, 2, 0);
    if (!steps)
        return 0;
    memset(kinds.other + steps, 0xFF, sizeof kinds.other - sizeof *kinds.other * steps);
    unsigned count = 2 * steps - 3;
    if (search->held & (SET(TOKEN) | SET(WORD)))
        note_whole(search, batch, &kinds, count);
    if (!search->has_others)
        return (int)count;
    const uint8_t *masks = (const uint8_t *)kinds.other + LEAD / 8;
    for (unsigned first = 0; first < count; first += 16) {
        if (search->few_count <= FEW && !is_any_few(search, masks + 2 * first))
            continue;
        for (unsigned each = first; each < first + 16 && each < count; each++)
            if (search->others[masks[2 * each]])
                note_other(search, batch, masks[2 * each], each);
    }
    return (int)count;
}

/* Of each bit, whether it or one of the four behind it is set: those of a gram of five. */
INLINE uint64_t any_of_five(uint64_t bits)
{
    uint64_t any = bits | bits >> 1;
    return any | any >> 2 | bits >> 4;
}

/* Of each nibble of twelve, from the third on, the lowest bit: put together. */
INLINE uint64_t each_fourth(uint64_t bits)
{
    bits = bits >> 8 & 0x0000111111111111u;
    bits = (bits | bits >> 3) & 0x0303030303030303u;
    bits = (bits | bits >> 6) & 0x000F000F000F000Fu;
    return (bits | bits >> 12 | bits >> 24) & 0xFFF;
}

/* Look up the grams of a shape: a bit for each fourth position. */
static int look_at_bits(Search *search, Py_ssize_t from, uint64_t bits, unsigned shape)
{
    Filter filter = search->filters[shape];
    for (; bits; bits &= bits - 1) {
        Py_ssize_t place = from + 4 * (Py_ssize_t)lowest(bits);
        uint64_t product = (gram_at(search, place) & search->mask) * search->factor;
        if (passes(&filter, product) && look_up(search, place, product, SET(shape)))
            return -1;
    }
    return 0;
}

/* Where five bytes are not only token bytes of a window: the other shapes, one by one. */
static int look_at_others(Search *search, Py_ssize_t from, uint64_t places, uint64_t other,
                          uint64_t spaced)
{
    for (; places; places &= places - 1) {
        unsigned bit = lowest(places), mask = (unsigned)(other >> bit) & 31;
        unsigned shapes = search->held & SET(SHORT);
        if (mask)
            shapes = search->masks[mask] & (spaced >> bit & 1 ? SET(SPACED) : SET(MIXED));
        uint64_t product = (gram_at(search, from + bit) & search->mask) * search->factor;
        if (look(search, from + bit, product, shapes))
            return -1;
    }
    return 0;
}

/* Look up grams of five bytes, one in four: a word of bits tells of twelve, from its ninth on.
   Filters of short spellings are near, so no word is sent for. */
INLINE int take_short_by(Search *search, Batch *batch, Tell tell)
{
    Kinds kinds;
    unsigned steps = tell_block(&kinds, search, batch, tell, 3, 1);
    if (!steps)
        return 0;
    unsigned held = search->held, turns = (STEP * steps - 72) / 48 + 1;
    uint64_t tokens = 0, words = 0; /* of up to five turns */
    Py_ssize_t from = batch->place;
    for (unsigned turn = 0, taken = 0; turn < turns; turn++) {
        size_t at = LEAD / 8 - 1 + 6 * turn;
        uint64_t other = bits_from(kinds.other, at);
        uint64_t unlow = any_of_five(~bits_from(kinds.low, at));
        /* Where eight token bytes begin, and then the grams in such a window. */
        uint64_t window = ~other & ~other >> 1;
        window &= window >> 2;
        window &= window >> 4;
        window |= window << 1;
        window |= window << 2;
        tokens |= each_fourth(window & unlow) << taken;
        words |= each_fourth(window & ~unlow) << taken;
        taken += 12;
        if (taken == 60 || turn + 1 == turns) {
            if ((held & SET(TOKEN) && look_at_bits(search, from, tokens, TOKEN))
                || (held & SET(WORD) && look_at_bits(search, from, words, WORD)))
                return -1;
            from += 4 * (Py_ssize_t)taken;
            tokens = words = taken = 0;
        }
        if (held & (SET(SHORT) | SET(MIXED) | SET(SPACED))) {
            uint64_t any_other = any_of_five(other);
            uint64_t spaced = any_of_five(bits_from(kinds.spaced, at));
            uint64_t left = (held & SET(SHORT) ? ~any_other : 0)
                          | (held & SET(MIXED) ? any_other & ~spaced : 0)
                          | (held & SET(SPACED) ? spaced : 0);
            if (look_at_others(search, batch->place + 48 * (Py_ssize_t)turn - 8,
                               left & 0x0011111111111100u, other, spaced))
                return -1;
        }
    }
    return 12 * (int)turns;
}

typedef int (*Take)(Search *search, Batch *batch);

static int take_long_usual(Search *search, Batch *batch)
{
    return take_long_by(search, batch, tell_usual);
}

static int take_short_usual(Search *search, Batch *batch)
{
    return take_short_by(search, batch, tell_usual);
}

#ifdef WIDE
WIDE static int take_long_wide(Search *search, Batch *batch)
{
    return take_long_by(search, batch, tell_wide);
}

WIDE static int take_short_wide(Search *search, Batch *batch)
{
    return take_short_by(search, batch, tell_wide);
}
#endif

static Take take_long = take_long_usual, take_short = take_short_usual;

static void fit(void) /* to the machine */
{
#ifdef WIDE
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        take_long = take_long_wide, take_short = take_short_wide;
#endif
}

/* Look at each position in `stride`, counted from where windows may begin: a block at a time,
   each asked for when the next is on its way. */
static int look_through(Search *search)
{
    Take take = NULL;
    if (search->masks == NULL)
        take = take_all;
    else if (search->width == 8 && search->stride == 16)
        take = take_long;
    else if (search->width == 5 && search->stride == 4)
        take = take_short;
    Py_ssize_t width = search->width, stride = search->stride, size = search->size;
    Py_ssize_t place = stride - 1 - search->begun;
    for (; place < LEAD && place + width <= size; place += stride)
        if (look_at_one(search, place))
            return -1;
    Batch batches[2];
    unsigned turn = 0;
    batches[1].count = 0;
    while (take != NULL && place < size) {
        Batch *batch = &batches[turn];
        batch->place = place;
        batch->count = 0;
        int count = take(search, batch);
        if (count < 0)
            return -1;
        if (!count)
            break;
        send_for(search, batch);
        place += (Py_ssize_t)count * stride;
        turn ^= 1;
        if (ask(search, &batches[turn]))
            return -1;
        batches[turn].count = 0;
    }
    if (ask(search, &batches[turn ^ 1]))
        return -1;
    for (; place + width <= size; place += stride)
        if (look_at_one(search, place))
            return -1;
    return 0;
}

static int wrong(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return -1;
}

static int take_data(Search *search, const Py_buffer *before, const Py_buffer *data)
{
    Py_ssize_t stride = search->stride;
    if (search->width < 1 || search->width > WIDTH_MAX || stride < 1 || stride > STRIDE_MAX
        || (stride & (stride - 1)))
        return wrong("grams are 1 to 8 bytes, at each 1, 2, 4, 8 or 16");
    Py_ssize_t kept = search->width + search->stride - 2;
    search->mask = ~(uint64_t)0 >> (64 - 8 * search->width);
    search->begun = before->len < kept ? before->len : kept;
    search->data = data->buf;
    search->size = data->len;
    if (search->begun)
        memcpy(search->start, (const uint8_t *)before->buf + before->len - search->begun,
               (size_t)search->begun);
    return 0;
}

/* Take filters of the shapes in order, each of a power of two words that the upper bits of a
   hash can reach, or of none. */
static int take_filters(Search *search, PyObject *filters)
{
    if (PyTuple_Size(filters) != SHAPES)
        return PyErr_Occurred() ? -1 : wrong("there is a filter for each shape");
    for (unsigned shape = 0; shape < SHAPES; shape++) {
        Py_buffer *words = &search->words[shape];
        if (PyObject_GetBuffer(PyTuple_GetItem(filters, shape), words, PyBUF_SIMPLE))
            return -1;
        search->words_count = shape + 1;
        Py_ssize_t count = words->len / (Py_ssize_t)sizeof(uint64_t);
        if (words->len == 0)
            continue;
        if (count < 2 || count > 1 << 22 || (count & (count - 1)) || (uintptr_t)words->buf % 8
            || words->len % (Py_ssize_t)sizeof(uint64_t))
            return wrong("a filter is 2 to 4194304 words, a power of two");
        Filter *filter = &search->filters[shape];
        filter->words = words->buf;
        for (filter->shift = 64; count > 1; count >>= 1)
            filter->shift--;
        search->held |= SET(shape);
    }
    return 0;
}

static int take_masks(Search *search, const Py_buffer *masks)
{
    if (masks->len && masks->len != 256)
        return wrong("what comes into question is told for 256 masks, or there are no shapes");
    search->masks = masks->len ? masks->buf : NULL;
    const unsigned pure = SET(TOKEN) | SET(WORD) | SET(SHORT);
    for (unsigned mask = 0; mask < masks->len; mask++) {
        if (mask ? search->masks[mask] & (~search->held | pure)
                 : search->masks[mask] != (search->held & pure))
            return wrong("a mask brings a shape into question that no such gram has");
        search->others[mask] = search->masks[mask] & ~(SET(TOKEN) | SET(WORD));
        if (!search->others[mask])
            continue;
        search->has_others = 1;
        if (search->few_count < FEW)
            search->few[search->few_count] = (Masks){0} + (uint16_t)mask;
        search->few_count++;
    }
    return 0;
}

static int take_known(Search *search, PyObject *known)
{
    Py_ssize_t count = PyTuple_Size(known);
    if (count < 0)
        return -1;
    if (count > KNOWN_MAX)
        return wrong("too many arrays of grams");
    while (search->known_count < count) {
        Py_buffer *buffer = &search->known[search->known_count];
        if (PyObject_GetBuffer(PyTuple_GetItem(known, search->known_count), buffer, PyBUF_SIMPLE))
            return -1;
        search->known_count++;
        if (buffer->len % (Py_ssize_t)sizeof(uint64_t)
            || (buffer->len && (uintptr_t)buffer->buf % 8))
            return wrong("grams are numbers of eight bytes");
    }
    return 0;
}

PyDoc_STRVAR(marks_doc,
"marks(width, stride, factor, filters, masks, known, before, data, /)\n--\n\n"
"Return the grams in data that are known, see gram_marks.py.");

static PyObject *marks(PyObject *module, PyObject *args)
{
    (void)module;
    Search search;
    memset(&search, 0, sizeof search);
    Py_buffer before, data, masks;
    PyObject *filters, *known;
    unsigned long long factor;
    if (!PyArg_ParseTuple(args, "nnKO!y*O!y*y*:marks", &search.width, &search.stride, &factor,
                          &PyTuple_Type, &filters, &masks, &PyTuple_Type, &known, &before, &data))
        return NULL;
    search.factor = factor;
    search.found = PyList_New(0);
    int failed = search.found == NULL || take_data(&search, &before, &data)
              || take_filters(&search, filters) || take_masks(&search, &masks)
              || take_known(&search, known) || look_through(&search)
              || PyList_Sort(search.found);
    while (search.known_count)
        PyBuffer_Release(&search.known[--search.known_count]);
    while (search.words_count)
        PyBuffer_Release(&search.words[--search.words_count]);
    PyBuffer_Release(&before);
    PyBuffer_Release(&data);
    PyBuffer_Release(&masks);
    if (failed)
        Py_CLEAR(search.found);
    return search.found;
}

static PyMethodDef methods[] = {
    {"marks", marks, METH_VARARGS, marks_doc},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    fit();
    return PyModule_AddIntConstant(module, "EDITION", EDITION);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_marks", "The inner loop of grams.py.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__marks(void)
{
    return PyModuleDef_Init(&module_def);
}
