// Frames in, class ids out, around any engine: what fastseg_runtime does in Python, in C++17.
//
//   fastseg-run street.fastseg --extract cpu-fp32 -o model
//
// writes a network and contract.json into a folder; read_contract() reads it, Segmenter brings a
// frame to the network's input and the ids back to the frame, overlay() draws them. Every byte is
// the one that Python computes without OpenCV (arrays/image.py, engines/frame_runner.py); Clang
// wants -ffp-contract=off for that where the CPU multiplies and adds at once (arm64,
// -march=native). docs/platforms/cpp.md tells more.
//
// Sizes are in pixels, pictures 8-bit, three interleaved channels, rows from top to bottom.
// Whatever is not as expected throws fastseg::Error with one line. Licence: MIT.
#ifndef FASTSEG_HPP
#define FASTSEG_HPP

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <locale>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef __FAST_MATH__
#error "fastseg.hpp rounds as Python does; compile without -ffast-math"
#endif
static_assert(FLT_EVAL_METHOD == 0, "floats must be rounded to floats: -msse2 -mfpmath=sse");

// GCC would fuse a multiplication with an addition where the CPU can, which rounds once and not
// twice; not inlined, since its callers may be compiled so.
#if defined(__GNUC__) && !defined(__clang__)
#define FASTSEG_ROUNDS_TWICE __attribute__((noinline, optimize("fp-contract=off")))
#else
#define FASTSEG_ROUNDS_TWICE
#endif

namespace fastseg {

inline constexpr int kContractVersion = 1;
inline constexpr int kMaxInputSide = 16384, kMaxFrameSide = 32767;  // as in Python
inline constexpr double kMostBilinear = 2.0;  // frames larger by more than that are averaged
inline constexpr int kMaxClasses = 255;                             // ids are bytes, 255 is "ignore"
inline constexpr std::size_t kMaxContractBytes = 1 << 20;  // 255 names of 200 letters fit, escaped
inline constexpr int kMaxDepth = 8;                        // of contract.json, which has 4
inline constexpr std::size_t kMaxEntries = 1000;           // of a list or a table, which have 255

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// ---- contract.json -------------------------------------------------------------------------

struct ClassInfo {
  std::string name;
  std::array<std::uint8_t, 3> color;  // RGB
};

struct Contract {
  struct Input {
    std::string name, type, layout;  // "uint8", "NHWC": the camera's bytes, RGB
    int width, height;
    double mean, std;  // (x - mean) / std, for types other than uint8
    bool letterbox;    // keeps proportions; false: stretches
  };
  struct Output {
    std::string name, type, layout;
    int width, height;  // of the class map
    bool padded;        // logits cover the input and its padding; false: the input alone
  };
  std::string target, file;
  std::string backend;  // that the file is made for: "onnxruntime", "tensorrt"; "": not said
  Input input;
  Output output;
  int ignore_index;
  std::vector<ClassInfo> classes;  // in the order of ids
};

namespace detail {

struct Json {
  enum Kind { kNull, kBool, kNumber, kText, kList, kTable } kind = kNull;
  double number = 0;
  std::string text;
  std::vector<std::string> keys;  // of a table
  std::vector<Json> items;        // of a list, or a table's values
};

// RFC 8259 and no more: nothing twice in a table, nothing after the document, bounded depth.
class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  Json document() {
    Json value = read(0);
    skip_blanks();
    if (at_ != text_.size()) fail("more after its end");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw Error("contract.json is damaged at byte " + std::to_string(at_) + ": " + what +
                "; extract it again");
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool take(char wanted) {
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void skip_blanks() {
    while (take(' ') || take('\n') || take('\r') || take('\t')) {
    }
  }

  Json read(int depth) {
    if (depth > kMaxDepth) fail("nested too deep");
    skip_blanks();
    Json value;
    switch (peek()) {
      case '{':
        return table(depth);
      case '[':
        return list(depth);
      case '"':
        value.kind = Json::kText;
        value.text = text();
        return value;
      case 't':
        return word("true", Json::kBool, 1);
      case 'f':
        return word("false", Json::kBool, 0);
      case 'n':
        return word("null", Json::kNull, 0);
      default:
        return number();
    }
  }

  Json table(int depth) {
    Json value;
    value.kind = Json::kTable;
    ++at_;
    skip_blanks();
    if (take('}')) return value;
    do {
      skip_blanks();
      if (peek() != '"') fail("expected a name");
      std::string key = text();
      if (std::find(value.keys.begin(), value.keys.end(), key) != value.keys.end())
        fail("a name that was there before");
      skip_blanks();
      if (!take(':')) fail("expected ':'");
      value.keys.push_back(std::move(key));
      add(value, depth);
      skip_blanks();
    } while (take(','));
    if (!take('}')) fail("expected ',' or '}'");
    return value;
  }

  Json list(int depth) {
    Json value;
    value.kind = Json::kList;
    ++at_;
    skip_blanks();
    if (take(']')) return value;
    do {
      add(value, depth);
      skip_blanks();
    } while (take(','));
    if (!take(']')) fail("expected ',' or ']'");
    return value;
  }

  void add(Json& value, int depth) {
    if (value.items.size() == kMaxEntries) fail("more than 1000 entries");
    value.items.push_back(read(depth + 1));
  }

  Json word(std::string_view expected, Json::Kind kind, double number) {
    if (text_.substr(at_, expected.size()) != expected) fail("expected a value");
    at_ += expected.size();
    Json value;
    value.kind = kind;
    value.number = number;
    return value;
  }

  void digits() {
    if (peek() < '0' || peek() > '9') fail("expected a digit");
    while (peek() >= '0' && peek() <= '9') ++at_;
  }

  Json number() {
    const std::size_t start = at_;
    take('-');
    if (!take('0')) digits();
    if (take('.')) digits();
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      digits();
    }
    if (at_ - start > 32) fail("a number that is too long");
    std::istringstream stream{std::string(text_.substr(start, at_ - start))};
    stream.imbue(std::locale::classic());  // a point is a point, whatever the user's language
    Json value;
    value.kind = Json::kNumber;
    if (!(stream >> value.number)) fail("a number that is too large");
    return value;
  }

  std::string text() {
    std::string result;
    ++at_;
    while (!take('"')) {
      if (at_ == text_.size()) fail("a text without its end");
      if (static_cast<unsigned char>(text_[at_]) < 0x20) fail("a control character in a text");
      if (take('\\'))
        escape(result);
      else
        result += text_[at_++];
    }
    return result;
  }

  void escape(std::string& result) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
    if (take('u')) return append_utf8(result, code_point());
    const std::size_t which = kNames.find(peek());
    if (at_ == text_.size() || which == std::string_view::npos) fail("an unknown escape");
    result += kMeant[which];
    ++at_;
  }

  std::uint32_t code_point() {
    const std::uint32_t first = four_hex();
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || !take('\\') || !take('u')) fail("half a character");
    const std::uint32_t second = four_hex();
    if (second < 0xDC00 || second > 0xDFFF) fail("half a character");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  std::uint32_t four_hex() {
    std::uint32_t value = 0;
    for (int count = 0; count < 4; ++count, ++at_) {
      const char digit = peek();
      if (digit >= '0' && digit <= '9')
        value = value * 16 + static_cast<std::uint32_t>(digit - '0');
      else if ((digit | 32) >= 'a' && (digit | 32) <= 'f')
        value = value * 16 + static_cast<std::uint32_t>((digit | 32) - 'a' + 10);
      else
        fail("expected four hexadecimal digits");
    }
    return value;
  }

  static void append_utf8(std::string& result, std::uint32_t code) {
    static constexpr std::uint32_t kLead[] = {0, 0xC0, 0xE0, 0xF0};
    const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    result += static_cast<char>(kLead[more] | (code >> (6 * more)));
    for (int left = more - 1; left >= 0; --left)
      result += static_cast<char>(0x80 | ((code >> (6 * left)) & 0x3F));
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// A table of contract.json, which knows its place for messages.
class Table {
 public:
  Table(const Json& json, std::string place) : json_(json), place_(std::move(place)) {
    if (json.kind != Json::kTable) wrong("", "a table");
  }

  const Json& at(const char* key, Json::Kind kind, const char* expected) const {
    const auto found = std::find(json_.keys.begin(), json_.keys.end(), key);
    if (found == json_.keys.end()) wrong(key, expected);
    const Json& value = json_.items[static_cast<std::size_t>(found - json_.keys.begin())];
    if (value.kind != kind) wrong(key, expected);
    return value;
  }

  bool has(const char* key) const {
    return std::find(json_.keys.begin(), json_.keys.end(), key) != json_.keys.end();
  }

  Table table(const char* key) const {
    return Table(at(key, Json::kTable, "a table"), place_ + key + ".");
  }

  // Messages and programs print texts: they have nothing that a terminal obeys (C0, DEL, C1).
  std::string text(const char* key) const {
    const std::string& text = at(key, Json::kText, "a text").text;
    char before = '\0';
    for (const char byte : text) {
      const auto code = static_cast<unsigned char>(byte);
      if (code < 0x20 || code == 0x7F || (before == '\xC2' && code < 0xA0))
        wrong(key, "a text without control characters");
      before = byte;
    }
    return text;
  }

  double number(const char* key, double least, double most) const {
    const std::string expected = "a number from " + shown(least) + " to " + shown(most);
    const double value = at(key, Json::kNumber, expected.c_str()).number;
    if (!(value >= least && value <= most)) wrong(key, expected.c_str());
    return value;
  }

  int integer(const char* key, int least, int most) const {
    const double value = number(key, least, most);
    if (value != std::floor(value)) wrong(key, "an integer");
    return static_cast<int>(value);
  }

  [[noreturn]] void wrong(const char* key, const char* expected) const {
    throw Error("contract.json: expected " + std::string(expected) + " at " + place_ + key +
                "; extract it again with the fastseg-run of this header");
  }

 private:
  static std::string shown(double value) {
    std::ostringstream stream;
    stream.imbue(std::locale::classic());
    stream << value;
    return stream.str();
  }

  const Json& json_;
  std::string place_;
};

inline ClassInfo read_class(const Json& json) {
  const Table table(json, "classes[].");
  ClassInfo result{table.text("name"), {}};
  const Json& color = table.at("color", Json::kList, "three integers 0 to 255");
  bool fits = color.items.size() == 3;
  for (std::size_t index = 0; fits && index < 3; ++index) {
    const Json& part = color.items[index];
    fits = part.kind == Json::kNumber && part.number >= 0 && part.number <= 255 &&
           part.number == std::floor(part.number);
    if (fits) result.color[index] = static_cast<std::uint8_t>(part.number);
  }
  if (!fits) table.wrong("color", "three integers 0 to 255");
  return result;
}

// A path that stays in the folder, as those of a bundle do.
inline bool stays_inside(const std::string& path) {
  if (path.find_first_of(std::string_view("\\:\0", 3)) != std::string::npos) return false;
  std::istringstream parts(path + "/");
  for (std::string part; std::getline(parts, part, '/');)
    if (part.empty() || part == "." || part == "..") return false;
  return true;
}

}  // namespace detail

// Reads the text of contract.json; names that it does not know are passed over.
inline Contract parse_contract(std::string_view text) {
  using detail::Json;
  if (text.size() > kMaxContractBytes) throw Error("contract.json is larger than 1 MiB");
  const Json document = detail::JsonReader(text).document();
  const detail::Table table(document, "");
  const double version = table.at("version", Json::kNumber, "a number").number;
  if (version != kContractVersion)
    throw Error("contract.json has another version than " + std::to_string(kContractVersion) +
                "; take header and fastseg-run from the same release");
  const detail::Table input = table.table("input"), output = table.table("output");
  const std::string resize = input.text("resize");
  if (resize != "stretch" && resize != "letterbox") input.wrong("resize", "stretch or letterbox");
  if (input.text("color") != "rgb") input.wrong("color", "rgb");
  const std::string cover = output.text("cover");
  if (cover != "padded" && cover != "image") output.wrong("cover", "padded or image");
  const int width = input.integer("width", 1, kMaxInputSide);
  const int height = input.integer("height", 1, kMaxInputSide);
  Contract result{
      table.text("target"),
      table.text("file"),
      table.has("backend") ? table.text("backend") : "",
      {input.text("name"), input.text("type"), input.text("layout"), width, height,
       input.number("mean", 0, 255), input.number("std", 1e-3, 1e4), resize == "letterbox"},
      {output.text("name"), output.text("type"), output.text("layout"),
       output.integer("width", 1, width), output.integer("height", 1, height), cover == "padded"},
      table.integer("ignore_index", 0, 255),
      {}};
  if (!detail::stays_inside(result.file)) table.wrong("file", "a file in this folder");
  for (const Json& entry : table.at("classes", Json::kList, "a list").items)
    result.classes.push_back(detail::read_class(entry));
  const std::size_t count = result.classes.size();
  if (count < 1 || count > kMaxClasses) table.wrong("classes", "1 to 255 of them");
  return result;
}

// Reads contract.json of a folder that fastseg-run --extract has written.
inline Contract read_contract(const std::filesystem::path& folder) {
  std::ifstream file(folder / "contract.json", std::ios::binary);
  std::string text(kMaxContractBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.empty())
    throw Error((folder / "contract.json").string() +
                " cannot be read; write it with fastseg-run BUNDLE --extract TARGET -o FOLDER");
  return parse_contract(text);
}

// ---- frames --------------------------------------------------------------------------------

struct Frame {
  const std::uint8_t* pixels;  // of the first row
  int width, height;
  std::ptrdiff_t stride = 0;  // bytes from a row to the next; 0: 3 * width
  bool bgr = false;           // OpenCV's order; false: RGB

  std::ptrdiff_t row_bytes() const { return stride ? stride : std::ptrdiff_t{3} * width; }
  const std::uint8_t* row(int y) const { return pixels + y * row_bytes(); }
};

namespace detail {

inline void check_sides(int width, int height) {
  if (std::min(width, height) < 1 || std::max(width, height) > kMaxFrameSide)
    throw Error("a frame of " + std::to_string(width) + "x" + std::to_string(height) +
                "; sides are 1 to " + std::to_string(kMaxFrameSide) + " pixels");
}

inline void check_frame(const Frame& frame) {
  check_sides(frame.width, frame.height);
  if (frame.pixels == nullptr) throw Error("a frame without pixels");
  const std::ptrdiff_t least = std::ptrdiff_t{3} * frame.width;
  if (std::abs(frame.row_bytes()) < least)  // negative: from bottom to top
    throw Error("rows of " + std::to_string(frame.width) + " pixels that are " +
                std::to_string(frame.row_bytes()) + " bytes apart; at least " +
                std::to_string(least));
}

// The two neighbours of each output position along one axis, and the weight of the second.
struct Taps {
  Taps(int size_in, int size_out, double scale) {
    for (int index = 0; index < size_out; ++index) {
      const double position = std::clamp((index + 0.5) * scale - 0.5, 0.0, size_in - 1.0);
      first.push_back(static_cast<int>(position));
      second.push_back(std::min(first.back() + 1, size_in - 1));
      weight.push_back(static_cast<float>(position - first.back()));
    }
  }
  std::vector<int> first, second;
  std::vector<float> weight;
};

// The pixels that each output pixel of a smaller axis covers, in units of which a pixel of the input
// has as many as the output has pixels: all shares are whole numbers, as in Python.
struct Covers {
  Covers(int size_in, int size_out) {
    for (std::int64_t index = 0; index < size_out; ++index) {
      const std::int64_t from = index * size_in, to = from + size_in;
      first.push_back(static_cast<int>(from / size_out));
      start.push_back(shares.size());
      for (std::int64_t pixel = first.back(); pixel * size_out < to; ++pixel)
        shares.push_back(static_cast<std::uint32_t>(std::min(to, (pixel + 1) * size_out) -
                                                    std::max(from, pixel * size_out)));
    }
    start.push_back(shares.size());
  }
  // Calls with each pixel that an output pixel covers, and its share.
  template <class Call>
  void each(int index, const Call& call) const {
    const auto at = static_cast<std::size_t>(index);
    int pixel = first[at];
    for (std::size_t entry = start[at]; entry < start[at + 1]; ++entry)
      call(pixel++, shares[entry]);
  }
  std::vector<int> first;
  std::vector<std::size_t> start;  // of an output pixel's shares; one more at the end
  std::vector<std::uint32_t> shares;
};

// The pixel of the class map under the centre of each pixel of the frame, along one axis.
inline std::vector<int> mask_index(int offset, int covered, int frame, int whole, int mask) {
  std::vector<int> result;
  for (std::int64_t index = 0; index < frame; ++index) {
    const std::int64_t twice_centre =
        (2 * index + 1) * covered + std::int64_t{2} * frame * offset;
    const std::int64_t pixel = twice_centre * mask / (std::int64_t{2} * frame * whole);
    result.push_back(static_cast<int>(std::min<std::int64_t>(pixel, mask - 1)));
  }
  return result;
}

}  // namespace detail

// Brings frames of one size into the network's input, and class maps back to that size.
class FrameFit {
 public:
  FrameFit(const Contract& contract, int width, int height)
      : width_(width),
        height_(height),
        input_(contract.input),
        output_(contract.output),
        placed_(place(contract.input, width, height)),
        across_(width, placed_.width, static_cast<double>(width) / placed_.width),
        down_(height, placed_.height, static_cast<double>(height) / placed_.height),
        rows_(detail::mask_index(placed_.top, placed_.height, height, input_.height,
                                 output_.height)),
        columns_(detail::mask_index(placed_.left, placed_.width, width, input_.width,
                                    output_.width)),
        image_(std::size_t{3} * static_cast<std::size_t>(input_.width) *
                   static_cast<std::size_t>(input_.height),
               static_cast<std::uint8_t>(std::nearbyint(input_.mean))),
        mixed_(std::size_t{3} * static_cast<std::size_t>(width)),
        shrinks_(width >= placed_.width && height >= placed_.height &&
                 std::max(static_cast<double>(width) / placed_.width,
                          static_cast<double>(height) / placed_.height) > kMostBilinear),
        rows_covered_(height, shrinks_ ? placed_.height : 0),
        columns_covered_(width, shrinks_ ? placed_.width : 0),
        sums_(shrinks_ ? std::size_t{3} * static_cast<std::size_t>(width) : 0) {}

  bool is_for(const Frame& frame) const {
    return frame.width == width_ && frame.height == height_;
  }

  // The network's input, RGB, rows side by side: valid until the next call. A frame that fits as
  // it is comes back itself.
  const std::uint8_t* to_input(const Frame& frame) {
    detail::check_frame(frame);
    const std::ptrdiff_t dense = std::ptrdiff_t{3} * input_.width;
    const bool fills = width_ == input_.width && height_ == input_.height;
    if (fills && !frame.bgr && frame.row_bytes() == dense) return frame.pixels;
    for (int y = 0; y < placed_.height; ++y) {
      std::uint8_t* out = image_.data() + dense * (placed_.top + y) + 3 * placed_.left;
      if (placed_.width == width_ && placed_.height == height_)
        copy_row(frame.row(y), frame.bgr, out);
      else if (shrinks_)
        shrink_row(frame, y, out);
      else
        resize_row(frame, y, out);
    }
    return image_.data();
  }

  // Writes a class map of the contract's output size into one of the frame's size.
  template <class Id>
  void to_frame(const Id* ids, std::uint8_t* classes, std::ptrdiff_t stride = 0) const {
    if (!stride) stride = width_;
    for (int y = 0; y < height_; ++y) {
      std::uint8_t* out = classes + y * stride;
      const auto row = static_cast<std::size_t>(y);
      if (y > 0 && rows_[row] == rows_[row - 1]) {
        std::memcpy(out, out - stride, static_cast<std::size_t>(width_));
        continue;
      }
      const Id* from = ids + std::ptrdiff_t{rows_[row]} * output_.width;
      for (int x = 0; x < width_; ++x)
        out[x] = static_cast<std::uint8_t>(from[columns_[static_cast<std::size_t>(x)]]);
    }
  }

 private:
  struct Placement {
    int top, left, height, width;
  };

  static Placement place(const Contract::Input& input, int width, int height) {
    detail::check_sides(width, height);
    if (!input.letterbox) return {0, 0, input.height, input.width};
    const double scale = std::min(static_cast<double>(input.height) / height,
                                  static_cast<double>(input.width) / width);
    // nearbyint rounds halves to even, as Python does.
    const int high = std::max(1, static_cast<int>(std::nearbyint(height * scale)));
    const int wide = std::max(1, static_cast<int>(std::nearbyint(width * scale)));
    return {(input.height - high) / 2, (input.width - wide) / 2, high, wide};
  }

  // Each pixel is the mean of what it covers, rounded half up: two neighbours would skip the rest.
  void shrink_row(const Frame& frame, int y, std::uint8_t* out) {
    // Shares of a column add up to the frame's height: 255 times that fits into 32 bits.
    std::fill(sums_.begin(), sums_.end(), 0U);
    rows_covered_.each(y, [&](int row, std::uint32_t share) {
      const std::uint8_t* from = frame.row(row);
      std::uint32_t* sums = sums_.data();
      for (std::size_t index = 0; index < sums_.size(); ++index) sums[index] += share * from[index];
    });
    const std::uint64_t area = std::uint64_t(height_) * std::uint64_t(width_);
    for (int x = 0; x < placed_.width; ++x, out += 3) {
      std::uint64_t total[3] = {0, 0, 0};
      columns_covered_.each(x, [&](int column, std::uint64_t share) {
        const std::uint32_t* sums = sums_.data() + 3 * column;
        for (int channel = 0; channel < 3; ++channel) total[channel] += share * sums[channel];
      });
      for (int channel = 0; channel < 3; ++channel)
        out[frame.bgr ? 2 - channel : channel] =
            static_cast<std::uint8_t>((2 * total[channel] + area) / (2 * area));
    }
  }

  void copy_row(const std::uint8_t* from, bool swap, std::uint8_t* out) const {
    for (int x = 0; x < width_; ++x, from += 3, out += 3) {
      out[0] = from[swap ? 2 : 0];
      out[1] = from[1];
      out[2] = from[swap ? 0 : 2];
    }
  }

  FASTSEG_ROUNDS_TWICE void resize_row(const Frame& frame, int y, std::uint8_t* out) {
    const auto row = static_cast<std::size_t>(y);
    const std::uint8_t* top = frame.row(down_.first[row]);
    const std::uint8_t* bottom = frame.row(down_.second[row]);
    const float weight = down_.weight[row];
    float* mixed = mixed_.data();
    for (int value = 0; value < 3 * width_; ++value)
      mixed[value] = static_cast<float>(bottom[value] - top[value]) * weight + top[value];
    const int red = frame.bgr ? 2 : 0;
    for (int x = 0; x < placed_.width; ++x, out += 3) {
      const auto column = static_cast<std::size_t>(x);
      const float* left = mixed + 3 * across_.first[column];
      const float* right = mixed + 3 * across_.second[column];
      const float share = across_.weight[column];
      for (int channel = 0; channel < 3; ++channel) {
        const int from = channel == 1 ? 1 : channel == 0 ? red : 2 - red;
        const float value = (right[from] - left[from]) * share + left[from];
        out[channel] = static_cast<std::uint8_t>(value + 0.5F);
      }
    }
  }

  int width_, height_;
  Contract::Input input_;
  Contract::Output output_;
  Placement placed_;
  detail::Taps across_, down_;
  std::vector<int> rows_, columns_;
  std::vector<std::uint8_t> image_;
  std::vector<float> mixed_;
  bool shrinks_;
  detail::Covers rows_covered_, columns_covered_;  // empty where nothing shrinks
  std::vector<std::uint32_t> sums_;
};

// Scores of an engine: float32 (classes, height, width), or (height, width, classes).
struct Logits {
  const float* scores;
  int classes, height, width;
  bool channels_last = false;
};

// Turns logits of one size into class maps of the contract's output size, as the graphs that give
// ids do: bilinear by pixel centres, ties to the lowest id. Those of FastSegNet cover its padding
// too: they grow by a whole factor, and what hangs over is cut off.
class LogitsToClasses {
 public:
  LogitsToClasses(const Contract::Output& output, int height, int width)
      : LogitsToClasses(output, height, width, (output.height + height - 1) / height,
                        (output.width + width - 1) / width) {}

  bool is_for(const Logits& logits) const {
    return logits.height == height_ && logits.width == width_;
  }

  // Returns the ids of the largest scores; valid until the next call.
  const std::uint8_t* operator()(const Logits& logits) {
    std::fill(ids_.begin(), ids_.end(), std::uint8_t{0});
    for (int index = 0; index < logits.classes; ++index) {
      widen(logits, index);
      for (std::size_t y = 0; y < down_.first.size(); ++y) compare_row(y, index);
    }
    return ids_.data();
  }

 private:
  LogitsToClasses(const Contract::Output& output, int height, int width, int factor_y,
                  int factor_x)
      : height_(height),
        width_(width),
        across_(width, output.width,
                output.padded && factor_x == factor_y ? 1.0 / factor_x
                                                      : static_cast<double>(width) / output.width),
        down_(height, output.height,
              output.padded && factor_x == factor_y ? 1.0 / factor_y
                                                    : static_cast<double>(height) / output.height),
        wide_(static_cast<std::size_t>(height) * across_.first.size()),
        best_(down_.first.size() * across_.first.size()),
        ids_(best_.size()) {}

  // One class at the class map's width, still at the logits' height.
  FASTSEG_ROUNDS_TWICE void widen(const Logits& logits, int index) {
    const std::ptrdiff_t step = logits.channels_last ? logits.classes : 1;
    const std::ptrdiff_t start =
        logits.channels_last ? index : std::ptrdiff_t{index} * height_ * width_;
    float* out = wide_.data();
    for (int y = 0; y < height_; ++y) {
      const float* row = logits.scores + start + step * y * width_;
      for (std::size_t x = 0; x < across_.first.size(); ++x) {
        const float left = row[step * across_.first[x]], right = row[step * across_.second[x]];
        *out++ = left + (right - left) * across_.weight[x];
      }
    }
  }

  FASTSEG_ROUNDS_TWICE void compare_row(std::size_t y, int index) {
    const std::size_t width = across_.first.size();
    const float* top = wide_.data() + static_cast<std::size_t>(down_.first[y]) * width;
    const float* bottom = wide_.data() + static_cast<std::size_t>(down_.second[y]) * width;
    const float share = down_.weight[y];
    float* best = best_.data() + y * width;
    std::uint8_t* ids = ids_.data() + y * width;
    for (std::size_t x = 0; x < width; ++x) {
      const float score = top[x] + (bottom[x] - top[x]) * share;
      // What is no number wins nothing, and after it nothing does, as in Python.
      if (index == 0 || score > best[x]) {
        best[x] = score;
        ids[x] = static_cast<std::uint8_t>(index);
      } else if (std::isnan(score)) {
        best[x] = score;
      }
    }
  }

  int height_, width_;
  detail::Taps across_, down_;
  std::vector<float> wide_, best_;
  std::vector<std::uint8_t> ids_;
};

// A network that runs on any engine: a callable that takes the input, uint8 RGB (height, width, 3)
// as the contract says, and returns a pointer to the ids, or Logits, valid until its next call.
template <class Engine>
class Segmenter {
  static constexpr bool kGivesLogits =
      std::is_same_v<std::invoke_result_t<Engine&, const std::uint8_t*>, Logits>;

 public:
  Segmenter(Contract contract, Engine engine)
      : contract_(std::move(contract)), engine_(std::move(engine)), fit_(contract_, 1, 1) {
    if (contract_.input.type != "uint8" || contract_.input.layout != "NHWC")
      throw Error("the network takes " + contract_.input.type + " " + contract_.input.layout +
                  "; expected uint8 NHWC, as targets for CPUs and Jetson have it");
    if ((contract_.output.layout == "NHW") == kGivesLogits)
      throw Error("the network gives " + contract_.output.name + " and its engine " +
                  (kGivesLogits ? "logits" : "class ids") + "; they have to be the same");
  }

  const Contract& contract() const { return contract_; }

  // Writes the class id of each pixel, as many as the frame has, rows side by side.
  void infer(const Frame& frame, std::uint8_t* classes) {
    if (!fit_.is_for(frame)) fit_ = FrameFit(contract_, frame.width, frame.height);
    const auto given = engine_(fit_.to_input(frame));
    if constexpr (kGivesLogits)
      fit_.to_frame(decode(given), classes);
    else
      fit_.to_frame(given, classes);
  }

 private:
  const std::uint8_t* decode(const Logits& logits) {
    if (logits.classes != static_cast<int>(contract_.classes.size()) ||
        std::min(logits.height, logits.width) < 1)
      throw Error("the engine gives scores of " + std::to_string(logits.classes) +
                  " classes, contract.json names " + std::to_string(contract_.classes.size()));
    if (!decoder_ || !decoder_->is_for(logits))
      decoder_.emplace(contract_.output, logits.height, logits.width);
    return (*decoder_)(logits);
  }

  std::optional<LogitsToClasses> decoder_;
  Contract contract_;
  Engine engine_;
  FrameFit fit_;
};

// Writes the frame with the classes' colours mixed in, rows side by side, in the frame's order of
// channels. Ids without a class leave the frame as it is. alpha: share of the colour, 0 to 1.
inline void overlay(const Frame& frame, const std::uint8_t* classes,
                    const std::vector<ClassInfo>& infos, std::uint8_t* out, double alpha = 0.5) {
  detail::check_frame(frame);
  if (!(alpha >= 0 && alpha <= 1)) throw Error("alpha is outside 0 (frame) to 1 (colour)");
  const int share = static_cast<int>(std::nearbyint(alpha * 256));
  for (int y = 0; y < frame.height; ++y) {
    const std::uint8_t* from = frame.row(y);
    for (int x = 0; x < frame.width; ++x, from += 3, out += 3) {
      const std::size_t id = *classes++;
      for (std::size_t channel = 0; channel < 3; ++channel) {
        const std::size_t part = frame.bgr ? 2 - channel : channel;
        out[channel] = id < infos.size()
                           ? static_cast<std::uint8_t>((from[channel] * (256 - share) +
                                                        infos[id].color[part] * share) >>
                                                       8)
                           : from[channel];
      }
    }
  }
}

}  // namespace fastseg

#endif
