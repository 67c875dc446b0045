// An engine that takes the strongest channel, and what a test wants to see of fastseg.hpp:
//   stand_in run FOLDER    PPM pictures in; of each the input, ids and overlay, as RGB then as BGR
//   stand_in logits FOLDER HEIGHT WIDTH    PPM pictures in, ids out, by scores of that size
//   stand_in show FOLDER   what the contract holds
//   stand_in damage        a contract in; each of its beginnings, and each byte exchanged
//   stand_in read          contracts in, each its size on a line and its bytes; of each, a line of
//                          what it holds, or why it is refused
//   stand_in frames FOLDER what it says of frames that cannot be
#include <iostream>
#include <iterator>

#include "../../../runtime/cpp/examples/pictures.hpp"

using namespace fastseg;

namespace {

struct StrongestChannel {
  const std::int32_t* operator()(const std::uint8_t* image) {
    const int width = contract.output.width, height = contract.output.height;
    write_pnm(std::cout, image, contract.input.width, contract.input.height, 3);
    const int step_x = contract.input.width / width, step_y = contract.input.height / height;
    ids.clear();
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const std::uint8_t* pixel = image + 3 * (y * step_y * contract.input.width + x * step_x);
        ids.push_back(static_cast<std::int32_t>(std::max_element(pixel, pixel + 3) - pixel));
      }
    return ids.data();
  }

  Contract contract;
  std::vector<std::int32_t> ids;
};

void run(const std::string& folder) {
  const Contract contract = read_contract(folder);
  Segmenter<StrongestChannel> segmenter(contract, {contract, {}});
  for (Picture picture; read_ppm(std::cin, picture);) {
    const std::size_t row = std::size_t{3} * static_cast<std::size_t>(picture.width), gap = 5;
    const auto rows = static_cast<std::size_t>(picture.height);
    std::vector<std::uint8_t> crop((row + gap) * rows), drawn(row * rows), ids(drawn.size() / 3);
    for (std::size_t y = 0; y < rows; ++y)
      std::copy_n(&picture.pixels[y * row], row, &crop[y * (row + gap)]);
    const auto stride = static_cast<std::ptrdiff_t>(row + gap);
    const Frame bgr{crop.data(), picture.width, picture.height, stride, true};
    for (const Frame& frame : {picture.frame(), bgr}) {
      segmenter.infer(frame, ids.data());
      ids.back() = 200;  // an id without a class
      overlay(frame, ids.data(), contract.classes, drawn.data(), 0.3);
      write_pnm(std::cout, ids.data(), picture.width, picture.height, 1);
      write_pnm(std::cout, drawn.data(), picture.width, picture.height, 3);
    }
  }
}

// The input's own channels at pixels apart, as scores; in whichever order the contract has them.
struct Channels {
  Logits operator()(const std::uint8_t* image) {
    const bool last = contract.output.layout == "NHWC";
    scores.assign(std::size_t{3} * static_cast<std::size_t>(height * width), 0.0F);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        for (int k = 0; k < 3; ++k) {
          const int from_y = y * contract.input.height / height;
          const int from_x = x * contract.input.width / width;
          const int at = last ? 3 * (y * width + x) + k : (k * height + y) * width + x;
          const float score = image[3 * (from_y * contract.input.width + from_x) + k];
          // What a network that has burst gives.
          scores[static_cast<std::size_t>(at)] = score == 0    ? std::nanf("")
                                                 : score == 255 ? INFINITY
                                                                : score;
        }
    return {scores.data(), classes, height, width, last};
  }

  Contract contract;
  int height, width, classes = 3;
  std::vector<float> scores;
};

void run_logits(const std::string& folder, int height, int width) {
  const Contract contract = read_contract(folder);
  Segmenter<Channels> segmenter(contract, {contract, height, width, 3, {}});
  std::vector<std::uint8_t> ids;
  for (Picture picture; read_ppm(std::cin, picture);) {
    ids.resize(picture.pixels.size() / 3);
    segmenter.infer(picture.frame(), ids.data());
    write_pnm(std::cout, ids.data(), picture.width, picture.height, 1);
  }
}

void show(const std::string& folder) {
  const Contract read = read_contract(folder);
  std::cout.precision(15);
  std::cout << read.target << '\n' << read.file << ' ' << read.backend << '\n';
  std::cout << read.input.name << ' ' << read.input.type << ' ' << read.input.layout << ' '
            << read.input.width << ' ' << read.input.height << ' ' << read.input.mean << ' '
            << read.input.std << ' ' << read.input.letterbox << '\n';
  std::cout << read.output.name << ' ' << read.output.type << ' ' << read.output.layout << ' '
            << read.output.width << ' ' << read.output.height << ' ' << read.ignore_index << '\n';
  for (const ClassInfo& entry : read.classes)
    std::cout << entry.name << ' ' << int{entry.color[0]} << ' ' << int{entry.color[1]} << ' '
              << int{entry.color[2]} << '\n';
}

bool reads(std::string_view text) {
  try {
    parse_contract(text);
    return true;
  } catch (const Error&) {  // and nothing else
    return false;
  }
}

void read_each() {
  for (std::string line; std::getline(std::cin, line);) {
    std::string text(std::stoul(line), '\0');  // on the heap, of its size: overruns are seen
    std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
    try {
      const Contract read = parse_contract(text);
      std::cout << "read " << read.input.width << ' ' << read.output.height << ' '
                << read.classes.size() << ' ' << read.file << '\n';
    } catch (const Error& error) {  // and nothing else
      std::cout << error.what() << '\n';
    }
  }
}

void refuse_frames(const std::string& folder) {
  const Contract contract = read_contract(folder);
  Segmenter<Channels> segmenter(contract, {contract, 4, 6, 3, {}});
  std::vector<std::uint8_t> pixels(300), ids(100), drawn(300);
  const std::uint8_t* const there = pixels.data();
  for (const Frame& frame :
       {Frame{there, 0, 10}, Frame{there, 10, -1}, Frame{there, kMaxFrameSide + 1, 1},
        Frame{nullptr, 10, 10}, Frame{there, 10, 10, 29}, Frame{there, 10, 10, -29}}) {
    try {
      segmenter.infer(frame, ids.data());
    } catch (const Error& error) {
      std::cout << error.what() << '\n';
    }
    try {
      overlay(frame, ids.data(), contract.classes, drawn.data());
    } catch (const Error& error) {
      std::cout << error.what() << '\n';
    }
  }
  segmenter.infer({there, 10, 10, 30}, ids.data());
  segmenter.infer({there + 270, 10, 10, -30}, ids.data());  // from bottom to top
}

void damage() {
  std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  std::size_t whole = 0;
  while (text.back() == '\n') text.pop_back();
  for (std::size_t size = 0; size < text.size(); ++size)  // on the heap: overruns are seen
    whole += reads(std::string(text, 0, size));
  for (std::size_t at = 0; at < text.size(); ++at)
    for (const char byte : std::string_view("\0\"\\{}[],:-.0e9u\xff ", 17)) {
      std::string other = text;
      other[at] = byte;
      reads(other);
    }
  std::cout << whole << " beginnings are whole, " << reads(text) << '\n';
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "run" && argc == 3) run(argv[2]);
  if (command == "logits" && argc == 5)
    run_logits(argv[2], std::stoi(argv[3]), std::stoi(argv[4]));
  if (command == "show" && argc == 3) show(argv[2]);
  if (command == "damage") damage();
  if (command == "read") read_each();
  if (command == "frames" && argc == 3) refuse_frames(argv[2]);
} catch (const Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
