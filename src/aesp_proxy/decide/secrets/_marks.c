/*
 * Find registered grams in bytes: the inner loop of grams.py. gram_marks.py does the same by
 * numpy, gives the same answers, and says what filters and known grams are.
 *
 * marks(before, data, width, stride, factor, words, known, separator)
 *     -> [(at, begun, number), ...]
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
#include <emmintrin.h>
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "grams are read little-endian: on this machine numpy does it"
#endif

#define EDITION 1 /* of the arguments: grams.py takes no other */
#define BATCH 64 /* positions whose words are on their way from memory */
#define STRIDE_MAX 16
#define WIDTH_MAX 8
#define BEFORE_MAX (STRIDE_MAX + WIDTH_MAX - 2)
#define KNOWN_MAX 16
#define KEPT_SHIFT 24
#define FIELD_MASK 63
#define EACH_BYTE 0x0101010101010101u
#define PLACE_BITS 10
#define PLACE_MASK ((1u << PLACE_BITS) - 1)

typedef struct {
    unsigned count;
    Py_ssize_t at[BATCH];
    uint64_t products[BATCH];
} Batch;

typedef struct {
    Py_ssize_t width, stride;
    uint64_t factor, mask;
    const uint64_t *words;
    int shift; /* of a product, to its word */
    Py_buffer known[KNOWN_MAX];
    Py_ssize_t known_count;
    int separator; /* a byte, -1 for none */
    /* What is looked at: `begun` bytes that stand before, and data. */
    uint8_t start[BEFORE_MAX + WIDTH_MAX];
    Py_ssize_t begun, size;
    const uint8_t *data;
    PyObject *found;
} Search;

static int passes(const Search *search, uint64_t product)
{
    uint64_t bits = (uint64_t)1 << (product >> KEPT_SHIFT & FIELD_MASK)
                  | (uint64_t)1 << (product >> (KEPT_SHIFT + 6) & FIELD_MASK)
                  | (uint64_t)1 << (product >> (KEPT_SHIFT + 12) & FIELD_MASK);
    return (search->words[product >> search->shift] & bits) == bits;
}

/* Append each place that the gram of `product` is known with; -1 with an exception set. */
static int look_up(Search *search, Py_ssize_t at, uint64_t product)
{
    uint64_t hash = product >> KEPT_SHIFT, key = hash << (2 * PLACE_BITS);
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
        for (; low < count && known[low] >> (2 * PLACE_BITS) == hash; low++) {
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

static inline int ask(Search *search, const Batch *batch)
{
    for (unsigned each = 0; each < batch->count; each++)
        if (passes(search, batch->products[each])
            && look_up(search, batch->at[each], batch->products[each]))
            return -1;
    return 0;
}

/* Whether one of the bytes that count in a gram is the separator: exact, but not for which. */
static inline unsigned is_parted(const Search *search, uint64_t gram, int width)
{
#ifdef __SSE2__
    __m128i equal = _mm_cmpeq_epi8(_mm_cvtsi64_si128((long long)gram),
                                   _mm_set1_epi8((char)search->separator));
    return ((unsigned)_mm_movemask_epi8(equal) & ((1u << width) - 1)) != 0;
#else
    uint64_t other = (gram ^ EACH_BYTE * (uint64_t)search->separator) | ~search->mask;
    (void)width;
    return ((other - EACH_BYTE) & ~other & EACH_BYTE << 7) != 0;
#endif
}

/* Take `count` positions of data, from `place` on, but those with a separator. Hash their grams
   and send for the words. */
static inline void take(const Search *search, Batch *batch, Py_ssize_t place, unsigned count,
                        int width, int stride)
{
    unsigned kept = 0, every = search->separator < 0;
    for (unsigned each = 0; each < count; each++, place += stride) {
        uint64_t gram;
        memcpy(&gram, search->data + place, sizeof gram);
        batch->at[kept] = place;
        kept += every || !is_parted(search, gram, width);
    }
    batch->count = kept;
    for (unsigned each = 0; each < kept; each++) {
        uint64_t gram;
        memcpy(&gram, search->data + batch->at[each], sizeof gram);
        uint64_t product = (gram & search->mask) * search->factor;
        batch->products[each] = product;
        __builtin_prefetch(search->words + (product >> search->shift));
    }
}

static inline int look_at_one(Search *search, Py_ssize_t place, const uint8_t *bytes)
{
    uint64_t gram = 0;
    memcpy(&gram, bytes, (size_t)search->width);
    if (search->separator >= 0 && is_parted(search, gram, (int)search->width))
        return 0;
    uint64_t product = gram * search->factor;
    return passes(search, product) && look_up(search, place, product);
}

/* Look at each position in `stride`, counted from where windows may begin: a batch at a time,
   each asked for when the next is taken. */
static inline int look_at(Search *search, int width, int stride)
{
    Batch batches[2];
    unsigned turn = 0;
    Py_ssize_t place = stride - 1 - search->begun, size = search->size;
    for (; place < 0 && place + width <= size; place += stride)
        if (look_at_one(search, place, search->start + search->begun + place))
            return -1;
    batches[1].count = 0;
    for (; place + WIDTH_MAX <= size; turn ^= 1) {
        Py_ssize_t left = (size - WIDTH_MAX - place) / stride + 1;
        unsigned count = left < BATCH ? (unsigned)left : BATCH;
        take(search, &batches[turn], place, count, width, stride);
        place += (Py_ssize_t)count * stride;
        if (ask(search, &batches[turn ^ 1]))
            return -1;
    }
    if (ask(search, &batches[turn ^ 1]))
        return -1;
    for (; place + width <= size; place += stride)
        if (look_at_one(search, place, search->data + place))
            return -1;
    return 0;
}

/* The two tiers by themselves: with constants the compiler makes less of each position. */
static int look_through(Search *search)
{
    if (search->width == 8 && search->stride == 16)
        return look_at(search, 8, 16);
    if (search->width == 5 && search->stride == 4)
        return look_at(search, 5, 4);
    return look_at(search, (int)search->width, (int)search->stride);
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
    Py_ssize_t some = (Py_ssize_t)sizeof search->start - search->begun;
    if (search->begun)
        memcpy(search->start, (const uint8_t *)before->buf + before->len - search->begun,
               (size_t)search->begun);
    if (data->len)
        memcpy(search->start + search->begun, data->buf,
               (size_t)(data->len < some ? data->len : some));
    return 0;
}

/* Take the words of a filter: a power of two that the upper bits of a hash can reach. */
static int take_words(Search *search, const Py_buffer *words)
{
    Py_ssize_t count = words->len / (Py_ssize_t)sizeof(uint64_t);
    if (count < 2 || count > 1 << 22 || (count & (count - 1)) || (uintptr_t)words->buf % 8
        || words->len % (Py_ssize_t)sizeof(uint64_t))
        return wrong("a filter is 2 to 4194304 words, a power of two");
    search->words = words->buf;
    for (search->shift = 64; count > 1; count >>= 1)
        search->shift--;
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

static int take_separator(Search *search, const Py_buffer *separator)
{
    if (separator->len > 1)
        return wrong("a separator is one byte, or there is none");
    search->separator = separator->len ? *(const uint8_t *)separator->buf : -1;
    return 0;
}

PyDoc_STRVAR(marks_doc,
"marks(before, data, width, stride, factor, words, known, separator, /)\n--\n\n"
"Return the grams in data that are known, see gram_marks.py.");

static PyObject *marks(PyObject *module, PyObject *args)
{
    (void)module;
    Search search;
    memset(&search, 0, sizeof search);
    Py_buffer before, data, words, separator;
    PyObject *known;
    unsigned long long factor;
    if (!PyArg_ParseTuple(args, "y*y*nnKy*Oy*:marks", &before, &data, &search.width,
                          &search.stride, &factor, &words, &known, &separator))
        return NULL;
    search.factor = factor;
    search.found = PyList_New(0);
    int failed = search.found == NULL || take_data(&search, &before, &data)
              || take_words(&search, &words) || take_known(&search, known)
              || take_separator(&search, &separator) || look_through(&search);
    while (search.known_count)
        PyBuffer_Release(&search.known[--search.known_count]);
    PyBuffer_Release(&before);
    PyBuffer_Release(&data);
    PyBuffer_Release(&words);
    PyBuffer_Release(&separator);
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
